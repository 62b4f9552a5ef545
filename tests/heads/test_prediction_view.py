"""What a notebook shows of predictions: pictures or texts with what is predicted, and the table stays a table."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import write_photo

from embedpipe._utils.notebook import html_of_types
from embedpipe.heads.predicting.view import mark_predictions, predictions_html

formatters = pytest.importorskip(
    "IPython.core.formatters", reason="notebooks need IPython: pip install 'embedpipe[test]'"
)


@pytest.fixture
def predicted(tmp_path: Path) -> pa.Table:
    """Predictions of twelve photos, one of which failed and one is wrong."""
    columns = {
        "id": [f"{i}.jpg" for i in range(12)],
        "uri": [str(write_photo(tmp_path / f"{i}.jpg", i)) for i in range(12)],
        "label": ["cat"] * 7 + ["<dog>"] * 4 + [None],
        "confidence": [0.9] * 11 + [None],
        "actual": ["<dog>"] + ["cat"] * 6 + ["<dog>"] * 5,
        "error": [None] * 11 + ["decode: no picture"],
    }
    return mark_predictions(pa.table(columns), "lda", "label")


def test_pictures_are_shown_with_their_predictions(predicted: pa.Table) -> None:
    html = predictions_html(predicted) or ""
    assert "12 items predicted by lda: cat: 7, &lt;dog&gt;: 4; 1 failed" in html
    assert html.count("<img") == 10
    assert "cat (0.900), actual &lt;dog&gt;" in html
    assert "and 2 more" in html
    assert len(re.sub(r"data:image/[^\"]*", "", html)) < 4_000


def test_parts_of_predictions_are_shown_alike(predicted: pa.Table) -> None:
    failed = predicted.filter(pc.is_valid(predicted["error"]))
    assert "decode: no picture" in (predictions_html(failed) or "")
    assert predictions_html(predicted.select(["id", "uri"])) is None
    assert predictions_html(pa.table({"id": ["a"], "label": ["cat"]})) is None


def test_texts_and_numbers_are_rows() -> None:
    columns = {"id": ["a"], "uri": ["a.txt"], "label": [1.5], "text": ["<b>hello"], "score_x": [1.0], "error": [None]}
    html = predictions_html(mark_predictions(pa.table(columns), "ridge", "label")) or ""
    assert "1 item predicted by ridge<" in html
    assert "&lt;b&gt;hello" in html
    assert not {"uri", "score_x", "error"} & set(re.findall(r"<th[^>]*>(\w+)</th>", html))


def test_other_tables_are_shown_as_before(predicted: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(kernel=None, display_formatter=formatters.DisplayFormatter())
    monkeypatch.setattr(html_of_types, "notebook_shell", lambda: shell)
    html = shell.display_formatter.formatters["text/html"]
    html.for_type(pa.Table, lambda table: f"{table.num_rows} of the user")
    for _ in range(2):
        mark_predictions(pa.table({"id": ["a"]}), "lda", "label")
    assert html(pa.table({"id": ["a"]})) == "1 of the user"
    assert "predicted by lda" in html(predicted)
    assert "text/html" not in shell.display_formatter.format("no table")[0]
