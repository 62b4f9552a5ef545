"""Saved results are equal to what was measured; files that are damaged, edited or hostile are refused by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from page import Browser, Page
from stored import clusters, make_store

import embedpipe
from embedpipe import FeatureStore, load_evaluation
from embedpipe._utils.checksums import write_json
from embedpipe.errors import UsageError
from embedpipe.evaluation import Evaluation, EvaluationGrid, evaluate, evaluate_datasets, saving

NAMES = np.array(["cat", "dog", "owl"])
ONCE: dict[str, Any] = {"folds": 3, "repeats": 1, "progress": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Return a store that no test changes."""
    X, y = clusters(60, spread=1.5)
    return make_store(
        tmp_path_factory.mktemp("common") / "store",
        X,
        label=NAMES[y].tolist(),
        number=(X[:, 0] + 0.25).tolist(),
        text=[f"text {i}" for i in range(60)],
    )


@pytest.fixture(scope="module")
def evaluation(store: FeatureStore) -> Evaluation:
    return evaluate(store, heads=["centroid", "lda", "knn"], **ONCE)


def test_loaded_evaluation_is_equal_and_gives_the_same_page_and_table(evaluation: Evaluation, tmp_path: Path) -> None:
    assert evaluation.save(tmp_path / "results.json") == []
    loaded = load_evaluation(tmp_path / "results.json")
    assert isinstance(loaded, Evaluation)
    assert loaded == evaluation
    assert loaded.predictions.schema == evaluation.predictions.schema
    pages, tables = [], []
    for each in (evaluation, loaded):
        each.to_html(tmp_path / "page.html")
        pages.append([line for line in (tmp_path / "page.html").read_text().splitlines() if " written " not in line])
        each.to_table(tmp_path / "table.tex")
        tables.append((tmp_path / "table.tex").read_text())
    assert pages[0] == pages[1]
    assert tables[0] == tables[1]


def test_regression_protocols_and_several_datasets_are_loaded_as_they_were(store: FeatureStore, tmp_path: Path) -> None:
    results = (
        evaluate(store, label="number", heads=["ridge"], **ONCE),
        evaluate(store, protocol="dino-knn", folds=3, progress=False),
        evaluate_datasets({"first": store, "second": store}, heads=["centroid"], **ONCE),
    )
    for result in results:
        result.save(tmp_path / "results.json")
        loaded = load_evaluation(tmp_path / "results.json")
        assert type(loaded) is type(result)
        assert loaded == result
        assert loaded.predictions.equals(result.predictions)


def test_many_predictions_are_left_out_and_counted(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "MOST_VALUES", 100)
    (note,) = evaluation.save(tmp_path / "results.json")
    assert note == "the 180 predictions are left out: write them as a table (predictions)"
    loaded = load_evaluation(tmp_path / "results.json")
    assert loaded == dataclasses.replace(evaluation, predictions=pa.table({}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[: len(data) // 2], "is damaged or was edited"),
        (lambda data: data.replace(b'"lda"', b'"ldb"', 1), "is damaged or was edited"),
        (lambda data: b"[" * 100_000, "is damaged or was edited"),
        (lambda data: b"\xff\xfe" + data, "is damaged or was edited"),
        (lambda data: b"{}", "is damaged or was edited"),
    ],
)
def test_damaged_files_are_refused(
    evaluation: Evaluation, tmp_path: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "results.json"
    evaluation.save(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError, match=message):
        load_evaluation(path)


def _set(values: Any, *place: Any, to: Any) -> None:
    *first, last = place
    for part in first:
        values = values[part]
    values[last] = to


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ("format",),
            99,
            f"reads format 1: install embedpipe {embedpipe.__version__} or newer, which wrote it",
        ),
        (("kind",), "head", "must hold results of `embedpipe evaluate --to`"),
        (("results", "rows"), "60", "results.rows must be int, got '60'"),
        (("results", "candidates"), [], "candidates must not be empty"),
        (("results", "metric"), "__class__", "metric must be one of accuracy"),
        (("results", "extra"), 1, "results must be the fields of Evaluation"),
        (("results", "candidates", 0, "estimates", "accuracy", "low"), 2.0, "estimates are no intervals"),
        (("results", "candidates", 0, "estimates", "accuracy", "value"), float("nan"), "must be a finite number"),
        (("results", "candidates", 0, "confusion"), [[1]], "confusion must be square"),
        (("results", "candidates", 0, "metrics", "accuracy"), [1.0], "must have a value for each resample"),
        (("results", "candidates", 0, "name"), ["lda"], "name must be str, got"),
        (("results", "candidates", 1, "difference", "verdict"), "good", "unknown verdict"),
        (("results", "predictions", 0, "type"), "extension<x>", "must be of a type of"),
        (("results", "predictions", 0, "values"), ["lda"], "must be columns of one length"),
        (("results", "n_folds"), 10**400, "do not fit each other"),
        (("results", "margin"), 1e308, "results.margin must be a finite number"),
        (("results", "margin"), 2**63, "results.margin must be a finite number"),
        (("results", "candidates", 0, "calibration", "rows", 0), -1, "must count rows"),
        (("results", "candidates", 0, "calibration", "rows", 0), 10**20, "rows[0] must be at most"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    evaluation: Evaluation, tmp_path: Path, place: tuple[Any, ...], value: Any, message: str
) -> None:
    path = tmp_path / "results.json"
    evaluation.save(path)
    values = json.loads(path.read_text())
    del values["checksum"]
    _set(values, *place, to=value)
    write_json(values, path)
    with pytest.raises(UsageError, match=r"results\.json") as error:
        load_evaluation(path)
    assert message in str(error.value)


def test_pages_of_loaded_results_link_to_nothing_but_files_and_the_web(evaluation: Evaluation, tmp_path: Path) -> None:
    hostile = "javascript:alert(1)//<script>"
    worst = next(candidate for candidate in evaluation.candidates if candidate.wrong)
    wrong = [dataclasses.replace(item, uri=hostile, id=hostile, text=None) for item in worst.wrong]
    changed = dataclasses.replace(
        evaluation,
        candidates=[dataclasses.replace(worst, wrong=wrong, difference=None)],
        label=hostile,
        predictions=pa.table({}),
    )
    EvaluationGrid({hostile: changed, "b": changed}).save(tmp_path / "results.json")
    grid = load_evaluation(tmp_path / "results.json")
    grid.to_html(tmp_path / "page.html")
    grid.to_table(tmp_path / "table.tex")
    pages = sorted(tmp_path.glob("*.html"))
    assert len(pages) == 3
    for page in pages:
        Page(page)
    assert "\\textless{}script\\textgreater{}" in (tmp_path / "table.tex").read_text()


def test_pages_of_protocols_are_well_formed(store: FeatureStore, tmp_path: Path) -> None:
    page = evaluate(store, protocol="dino-knn", folds=2, progress=False).to_html(tmp_path / "page.html")
    words = Page(page).words
    assert "Reported k 20" in words
    assert "Method weighted vote of the k nearest neighbours" in words
    assert "Published in Caron et al." in words
    assert "Fold k Top-1 accuracy 1 10 80.0 %" in words.replace("\xa0", " ")


@pytest.mark.long
def test_pages_of_protocols_fit_the_screen(store: FeatureStore, tmp_path: Path, browser: Browser) -> None:
    page = evaluate(store, protocol="few-shot", folds=2, progress=False).to_html(tmp_path / "page.html")
    for width in (1280, 390):
        browser.open_alone(page, width, "light")


def test_names_of_files_are_checked(evaluation: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.json"):
        evaluation.save(tmp_path / "results.txt")
    with pytest.raises(UsageError, match="there is no such file"):
        load_evaluation(tmp_path / "none.json")
    assert isinstance(EvaluationGrid({"a": evaluation}).predictions, pa.Table)
