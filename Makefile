# embedpipe: `make demo` on a machine with Python 3.11 or newer, git and make does everything.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all attack lint docs dist sbom bench peers clean

help: ## Say what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

install: $(STAMP) ## Make .venv with embedpipe and all that it needs (about 9 GB with PyTorch's default build)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "embedpipe needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Name a newer one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "making $(VENV) and installing embedpipe: a few minutes and about 9 GB, most of it PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q --progress-bar on \
	  -c constraints.txt --config-settings editable_mode=compat -e '.[demo,test,lint,docs,text,clip,cpu,datasets,finetune,mlflow,onnx,ray,video,view,xlsx]'
	@$(VENV)/bin/python -c 'import embedpipe; print("installed: embedpipe", embedpipe.__version__)'
	@touch $@

demo: $(STAMP) ## Embed 2,624 photos of solar cells, find the defective ones, predict, search, draw
	$(VENV)/bin/python pipelines/solar_cells.py

# Compiled modules are kept, as tests start many processes that would compile them again.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist worksteal

test: $(STAMP) ## Run the tests, two at a time, with coverage (some 7 minutes on two idle cores)
	$(PYTEST) -m "not long" --cov=embedpipe --cov-fail-under=95 --cov-report=term:skip-covered

test-all: $(STAMP) ## Run all tests, the long ones too
	$(PYTEST) --cov=embedpipe --cov-fail-under=95 --cov-report=term:skip-covered

attack: $(STAMP) ## Random inputs for 10 minutes, 1,000 damaged files, 100 kills, 100 full disks
	PYTHONPATH=tests $(VENV)/bin/python -m fuzzing --minutes 10
	PYTHONPATH=tests $(VENV)/bin/python -m damage --count 1000
	PYTHONPATH=tests $(VENV)/bin/python -m interrupted --kills 100 --full 100

lint: $(STAMP) ## Check style, formatting, types and documentation
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@$(MAKE) --no-print-directory docs

docs: $(STAMP) ## Build the documentation in build/docs; a warning is an error
	$(VENV)/bin/sphinx-build -W --keep-going -q -b html docs build/docs

# What builds a release is no dependency of embedpipe's.
TOOLS := build/tools/.installed

$(TOOLS):
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip install --disable-pip-version-check -q 'build>=1.3,<2' 'cyclonedx-bom>=7,<8' 'twine>=6,<8'
	@touch $@

dist: $(TOOLS) ## Build the wheel and the sdist into dist, and check what PyPI will show
	rm -rf dist build/lib build/bdist.*
	build/tools/bin/python -m build --outdir dist
	build/tools/bin/twine check --strict dist/*
	@ls -l dist

sbom: dist ## List what an installed wheel brings along, with licences, as CycloneDX in dist (several GB with PyTorch)
	$(PYTHON) -m venv --clear build/installed
	build/installed/bin/python -m pip install --disable-pip-version-check -q dist/*.whl
	sed "s/^dynamic = .*/version = \"$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' embedpipe/_utils/version.py)\"/" pyproject.toml > build/pyproject.toml
	build/tools/bin/cyclonedx-py environment --pyproject build/pyproject.toml --output-reproducible \
	  --output-file "$$(ls dist/*.whl | sed 's/-py3.*/.cdx.json/')" build/installed

# Not by itself: what the others import, and what needs a store, a folder or hours.
NOT_ALONE := $(patsubst %,benchmarks/%.py,common networks variance_floor predicted_gain serving text_finetuning transfer two_checkouts label_errors shift)

bench: $(STAMP) ## Run every benchmark that needs no argument, one after the other
	@for script in $(filter-out $(NOT_ALONE),$(wildcard benchmarks/*.py)); do echo "== $$script"; $(VENV)/bin/python "$$script" || exit 1; done

PEERS := $(patsubst benchmarks/peers/%.txt,benchmarks/.peers/%/.installed,$(wildcard benchmarks/peers/*.txt))

peers: $(PEERS) ## Hold embedpipe against other libraries, each in an environment of its own (8 GB)
	$(VENV)/bin/python benchmarks/peers.py

benchmarks/.peers/%/.installed: benchmarks/peers/%.txt | $(STAMP)
	$(VENV)/bin/python benchmarks/peers/environment.py $*
	@touch $@

clean: ## Remove what was made here, but for .venv and benchmarks/.peers
	rm -rf demo-output build dist docs/_generated *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +
