"""A head shows itself in one line, and as a table in a notebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from page import Page
from stored import clusters, make_store

from embedpipe import Head, fit
from embedpipe.statistics.percentages import percent


@pytest.fixture
def head(tmp_path: Path) -> Head:
    X, y = clusters(60)
    return fit(make_store(tmp_path / "store", X, species=np.array(["<cat>", "dog", "owl"])[y]), "lda", label="species")


def test_repr_is_one_line_with_the_first_metric(head: Head) -> None:
    accuracy = np.mean(head.report.metrics["accuracy"])
    assert repr(head) == (
        "Head(name='lda', task='classification', label='species', layer='features', backbone='timm/made_up', "
        f"accuracy={accuracy:.3f})"
    )


def test_repr_of_a_report_is_one_line_with_the_mean_of_each_metric(head: Head) -> None:
    shown = repr(head.report)
    assert shown.startswith("FitReport(classification, rows=60, measured by '5-fold cross-validation', accuracy=")
    assert f"log_loss={np.mean(head.report.metrics['log_loss']):.4g}" in shown
    assert "\n" not in shown


def test_repr_of_an_unmeasured_head_has_no_metric(tmp_path: Path) -> None:
    X, _ = clusters(30)
    numbers = fit(make_store(tmp_path / "store", X, label=X[:, 0]), folds=0)
    assert repr(numbers).endswith("backbone='timm/made_up')")
    assert "classes" not in numbers._repr_html_()
    assert "not measured" in numbers._repr_html_()


def test_html_shows_metrics_beside_the_baseline(head: Head, tmp_path: Path) -> None:
    (tmp_path / "head.html").write_text(head._repr_html_())
    page = Page(tmp_path / "head.html")
    accuracy, baseline = (np.mean(part["accuracy"]) for part in (head.report.metrics, head.report.baseline))
    assert f"{percent(accuracy)} (baseline {percent(baseline)})" in page.words
    for text in ("Head lda", "5-fold cross-validation", "features (8 values)", "<cat>, dog, owl", "60 rows of"):
        assert text in page.words
