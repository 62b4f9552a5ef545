"""The direction of imports, the size of files, and what `import embedpipe` costs."""

from __future__ import annotations

import ast
import functools
import graphlib
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import embedpipe

# These tests read sources and start processes: they run none of embedpipe's code here.
pytestmark = pytest.mark.no_cover

ROOT = Path(embedpipe.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
BASE = ("errors", "_utils", "statistics")
ORDER = (
    "sources",
    "decoding",
    "backbones",
    "store",
    "embedding",
    "neighbours",
    "splits",
    "estimators",
    "report",
    "heads",
    "mlflow",
    "querying",
    "evaluation",
    "cleaning",
    "clustering",
    "finetuning",
    "exporting",
    "diagnosis",
    "serving",
    "jobs",
    "sharing",
    "cli",
    "__main__",
)
#: What must stand without the others: kinds of source, and providers of backbones.
SIBLINGS = {
    "sources.readers": {"coco", "dataset", "file_list", "folder", "memory", "stream", "table", "tar_shards", "yolo"},
    "backbones.providers": {
        "open_clip.provider",
        "python_factory",
        "hugging_face.sentence_transformers",
        "hugging_face.transformers",
        "timm",
        "torchvision",
        "word_vectors.provider",
    },
}
#: Parts that know only arrays.
ARRAYS_ONLY = {"estimators": {"sources", "decoding", "backbones", "store", "embedding"}, "statistics": {*ORDER}}
MAX_FILES = 15
MAX_LINES = 400


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Return line and dotted name of every embedpipe module or name that a file imports, functions included."""
    imported: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported += [(node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "embedpipe"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if (node.module or "").split(".")[0] == "embedpipe":
                imported += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return imported


def rank(name: str) -> int:
    """Return the place of a module in the order of imports; the base comes before all."""
    part = name.split(".")[1]
    return -1 if part in BASE else ORDER.index(part)


def test_every_part_has_a_place_in_the_order() -> None:
    parts = {dotted(path).split(".")[1] for path in MODULES if path.parent != ROOT or path.stem != "__init__"}
    assert parts <= {*BASE, *ORDER}


def test_modules_import_only_what_comes_before() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        if path != ROOT / "__init__.py"
        for line, name in imports(path)
        if name.count(".") < 1 or rank(name) > rank(dotted(path))
    ]
    assert not wrong, f"a module may import only {BASE} and what comes before it in {ORDER}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for type checkers count as well."""
    known = {dotted(path) for path in MODULES}
    graph = {dotted(path): {module_of(name, known) for _, name in imports(path)} for path in MODULES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def module_of(name: str, known: set[str]) -> str:
    """Return the module that an imported name belongs to."""
    return name if name in known else name.rpartition(".")[0]


@pytest.mark.parametrize("part", ARRAYS_ONLY)
def test_parts_on_arrays_know_nothing_else(part: str) -> None:
    wrong = [
        f"{path.name}:{line} imports {name}"
        for path in MODULES
        if dotted(path).split(".")[1:2] == [part]
        for line, name in imports(path)
        if name.split(".")[1] in ARRAYS_ONLY[part]
    ]
    assert not wrong


def test_folders_are_small() -> None:
    files = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES)
    assert {folder: count for folder, count in files.items() if count > MAX_FILES} == {}


@pytest.mark.parametrize("part", SIBLINGS)
def test_siblings_do_not_import_each_other(part: str) -> None:
    siblings = {f"embedpipe.{part}.{name}" for name in SIBLINGS[part]}
    paths = [path for path in MODULES if dotted(path) in siblings]
    assert len(paths) == len(siblings)
    wrong = [
        f"{path.name}:{line} imports {name}"
        for path in paths
        for line, name in imports(path)
        if any(f"{name}.".startswith(f"{sibling}.") for sibling in siblings - {dotted(path)})
    ]
    assert not wrong


def test_files_are_small() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {file: count for file, count in lines.items() if count > MAX_LINES} == {}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has after a statement."""
    script = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


def test_import_loads_nothing_heavy() -> None:
    heavy = {
        "torch",
        "torchvision",
        "timm",
        "sklearn",
        "pyarrow",
        "numpy",
        "matplotlib",
        "PIL",
        "deltalake",
        "faiss",
        "rich",
        "skops",
        "typer",
    }
    assert not loaded_by("import embedpipe") & heavy


def test_the_command_begins_without_what_a_verb_may_not_need() -> None:
    assert not loaded_by("import embedpipe.cli") & {"sklearn", "scipy", "faiss", "pandas", "deltalake", "matplotlib"}


def seconds(statement: str) -> float:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(5))


def test_import_takes_less_than_half_a_second() -> None:
    assert seconds("import embedpipe") - seconds("pass") < 0.5
