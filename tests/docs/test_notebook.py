"""The notebook of the tutorial: it runs, and what it shows is small, in place and without warnings.

`python tests/docs/test_notebook.py` runs it and saves the outputs in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT

NOTEBOOK = ROOT / "docs/tutorials/notebook.ipynb"
nbformat = pytest.importorskip("nbformat", reason="needs pip install 'embedpipe[test]'")


def read_notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(notebook: Any, folder: Path) -> Any:
    """Run all cells in a folder, and return the notebook with the outputs that a front end would save."""
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


def outputs_of(notebook: Any) -> list[list[Any]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def check_outputs(notebook: Any) -> None:
    """Hold every cell to show one result, and at most one output of progress above it."""
    for outputs in outputs_of(notebook):
        *progress, result = outputs
        assert result.output_type == "execute_result"
        assert [each.output_type for each in progress] in ([], ["display_data"])
        for each in outputs:
            html = re.sub(r"data:image/[^\"]*", "", each.data.get("text/html", ""))
            assert len(html) < 12_000
            assert not {"<script", "<iframe"} & set(re.findall(r"<\w+", html))
        assert all("<progress" not in each.data["text/html"] for each in progress)
    kinds = [set(outputs[-1].data) - {"text/plain"} for outputs in outputs_of(notebook)]
    html, picture = {"text/html"}, {"image/png"}
    assert kinds == [html, html, html, picture, picture, html, html, set()]
    assert outputs_of(notebook)[-1][-1].data["text/plain"] == "1.0"


def test_saved_notebook_shows_results_and_is_small() -> None:
    check_outputs(read_notebook())
    assert NOTEBOOK.stat().st_size < 1_000_000


@pytest.mark.long
@pytest.mark.timeout(300)
def test_notebook_runs_and_shows_one_output_of_progress(open_folder: Callable[[list[str]], Path]) -> None:
    notebook = read_notebook()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    check_outputs(execute(notebook, open_folder([])))
