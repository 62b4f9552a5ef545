"""Sphinx configuration. The build reads the installed package and this folder, and never a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
sys.path.insert(0, str(DOCS.parent))

import api_pages  # noqa: E402
import command_line  # noqa: E402
import notebooks  # noqa: E402
import result_plots  # noqa: E402

import embedpipe  # noqa: E402

project = "embedpipe"
author = "the embedpipe contributors"
copyright = f"2026, {author}"
version = release = embedpipe.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
root_doc = "index"
exclude_patterns = ["_ext", "_generated/includes", "Thumbs.db", ".DS_Store"]

# Docstrings write `names` in single backticks, as code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
autodoc_typehints = "none"  # numpydoc shows the types of parameters
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # pages that include a part of another file may begin below level 1

templates_path = ["_templates"]
html_theme = "furo"
html_title = f"embedpipe {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"source_repository": "", "top_of_page_buttons": []}

# Pages that are made from the code: sources of this build, so they are written before Sphinx lists its files.
GENERATED = DOCS / "_generated"
GENERATED.mkdir(exist_ok=True)
command_line.write(GENERATED / "command-line.md")
# The pages are named here, as a list of files that Sphinx kept of its last build would lack new ones.
autosummary_generate = [f"{GENERATED.name}/{page}" for page in api_pages.write(GENERATED)]
notebooks.write(DOCS / "tutorials" / "notebook.ipynb", GENERATED)
result_plots.write(DOCS.parent / "benchmarks" / "RESULTS.md", GENERATED)


def _skip(app: Any, kind: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what scikit-learn adds to every estimator for the routing of metadata."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Any) -> None:
    """Register the hook above."""
    app.connect("autodoc-skip-member", _skip)
