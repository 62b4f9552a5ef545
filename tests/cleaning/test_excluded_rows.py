"""Excluded rows stay in the store, and fit, evaluate, rank, search, clean, shift and next leave them out and say so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from command import run
from conftest import TINY, write_photo
from stored import clusters, make_store

import embedpipe
from embedpipe.errors import UsageError
from embedpipe.store.editing.exclusion import LEFT_OUT, as_reasons

ROWS, OUT = 60, [3, 10, 41]


def rows_of(numbers: list[int]) -> list[str]:
    return [f"row-{number:03d}" for number in numbers]


def reasons(numbers: list[int], reason: str | None = "blurred") -> pa.Table:
    return pa.table({"id": rows_of(numbers), "excluded": pa.array([reason] * len(numbers), pa.string())})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> embedpipe.FeatureStore:
    """Two clear classes; three rows have a wrong label, and are excluded."""
    X, y = clusters(ROWS, classes=2, spread=0.3, dim=6)
    labels = [f"class {1 - number if row in OUT else number}" for row, number in enumerate(y)]
    made = make_store(tmp_path_factory.mktemp("excluded") / "store", X, label=labels)
    made.exclude(reasons(OUT))
    return made


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["blurred", " ", None, "no", "Yes"], ["blurred", None, None, None, "by hand"]),
        ([True, False, None], ["by hand", None, None]),
        ([1, 0, None], ["by hand", None, None]),
        ([1.0, 0.0, None, float("nan")], ["by hand", None, None, None]),
        (
            ["blurred", "n", "y", "0.0", "1.0", "NaN", "none", "-"],
            ["blurred", None, *["by hand", None] * 2, None, None],
        ),
    ],
)
def test_values_are_reasons(given: list[object], expected: list[str | None]) -> None:
    assert as_reasons(pa.chunked_array([pa.array(given)]), "excluded").to_pylist() == expected


@pytest.mark.parametrize(("given", "shown"), [([1, 2], "2"), ([0.5], "0.5"), ([b"x"], "b'x'"), ([["a"]], r"\['a'\]")])
def test_other_numbers_and_types_are_no_reasons(given: list[object], shown: str) -> None:
    with pytest.raises(UsageError, match=f"must hold reasons as text, or 1 and 0, got {shown}"):
        as_reasons(pa.chunked_array([pa.array(given)]), "excluded")


def test_only_exclude_writes_the_column(store: embedpipe.FeatureStore) -> None:
    with pytest.raises(UsageError, match="reserved for the store"):
        store.label(reasons(OUT), label="excluded", into="excluded")


def test_fit_leaves_them_out_and_records_it(store: embedpipe.FeatureStore) -> None:
    head = embedpipe.fit(store, "centroid", folds=3)
    assert head.report.left_out == {LEFT_OUT: len(OUT)}
    assert min(head.report.metrics["accuracy"]) == 1  # the wrong labels are neither learned nor measured


def test_evaluate_and_rank_leave_them_out(store: embedpipe.FeatureStore) -> None:
    evaluation = embedpipe.evaluate(store, heads=["centroid"], folds=3, repeats=1, near_duplicates="off")
    assert evaluation.left_out == {LEFT_OUT: len(OUT)}
    assert embedpipe.rank(store).left_out[LEFT_OUT] == len(OUT)


def test_an_evaluation_of_two_stores_leaves_out_what_one_excludes(
    store: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    X, _ = clusters(ROWS, classes=2, spread=0.3, dim=5)
    other = make_store(tmp_path / "other", X)
    other.exclude(reasons([0, 3]))
    stores = [store, other]
    evaluation = embedpipe.evaluate(stores, heads=["centroid"], folds=3, repeats=1, near_duplicates="off")
    assert evaluation.left_out == {LEFT_OUT: 3, f"{LEFT_OUT} in {other.path}": 1}


def test_a_search_does_not_find_them(store: embedpipe.FeatureStore) -> None:
    neighbours = embedpipe.search(store, store.to_numpy()[OUT[:1]], k=ROWS)
    assert neighbours.searched == len(neighbours) == ROWS - len(OUT)
    assert {*rows_of(OUT)}.isdisjoint(neighbours.table["id"].to_pylist())
    within = embedpipe.search(store, store.to_numpy()[:1], k=9, where="id < 'row-005'")
    assert within.table["id"].to_pylist().count("row-003") == 0
    assert len(within) == 4
    assert embedpipe.SimilarityIndex.load(store).notes() == ["3 excluded rows left out"]


def test_clean_shift_and_next_leave_them_out(store: embedpipe.FeatureStore) -> None:
    findings = embedpipe.clean(store, near_duplicates=0.99999)
    assert findings.rows == ROWS - len(OUT)
    assert f"left out: 3 rows {LEFT_OUT}" in findings.notes
    assert findings.counts["label error"] == 0
    assert findings.keep().filter(pa.compute.not_equal(findings.keep()["excluded"], "")).to_pylist() == [
        {"id": id, "excluded": "blurred"} for id in rows_of(OUT)
    ]
    assert embedpipe.shift(store, store).rows == (ROWS - len(OUT), ROWS - len(OUT))
    with pytest.raises(UsageError, match="all 57 of"):
        embedpipe.next(store)


def test_labels_as_arrays_come_without_them(store: embedpipe.FeatureStore) -> None:
    with pytest.warns(UserWarning, match="3 of 60 rows are excluded and are left out"):
        X, y = store.to_numpy("label")
    assert len(X) == len(y) == ROWS - len(OUT)
    assert len(store.to_numpy()) == len(store.ids()) == ROWS


def test_without_other_rows_fit_says_that_they_are_excluded(tmp_path: Path) -> None:
    X, y = clusters(9, classes=2)
    made = make_store(tmp_path / "store", X, label=[f"class {number}" for number in y])
    made.exclude(reasons([*range(9)]))
    with pytest.raises(UsageError, match=r"all 9 rows of .*store' are marked as excluded"):
        embedpipe.fit(made)


def test_a_table_excludes_rows_and_uses_them_again(store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    X, y = clusters(12, classes=2)
    path = tmp_path / "store"
    make_store(path, X, label=[f"class {number}" for number in y])
    table = tmp_path / "decisions.csv"
    table.write_text("id,label,excluded\nrow-000,class 1,\nrow-001,class 1,too dark\nrow-002,class 1,yes\nnone,,\n")
    counts = json.loads(run("label", path, table, "--json").stdout)
    assert (counts["unknown_ids"], counts["excluded"]) == (1, 2)
    facts = json.loads(run("info", path, "--json").stdout)
    assert facts["excluded"] == {"too dark": 1, "by hand": 1}
    table.write_text("id,excluded\nrow-001,\n")
    shown = run("label", path, table)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == "0 labelled, 0 unchanged, 0 unknown ids, 1 excluded\n"
    assert embedpipe.fit(path, "centroid", folds=2).report.left_out == {LEFT_OUT: 1}


def test_the_next_embed_leaves_them_excluded(tmp_path: Path) -> None:
    for number in range(4):
        write_photo(tmp_path / "photos" / "cat" / f"{number}.jpg", number)
    options = {"backbone": TINY, "to": str(tmp_path / "store")}
    store = embedpipe.embed(str(tmp_path / "photos"), **options)
    store.exclude(pa.table({"id": ["cat/0.jpg", "cat/1.jpg"], "excluded": ["blurred", "copy"]}))
    (tmp_path / "photos" / "cat" / "1.jpg").rename(tmp_path / "photos" / "cat" / "moved.jpg")
    write_photo(tmp_path / "photos" / "cat" / "9.jpg", 9)
    again = embedpipe.embed(str(tmp_path / "photos"), prune=True, **options)
    kept = dict(zip(again.ids(), again.to_arrow(["excluded"])["excluded"].to_pylist(), strict=True))
    assert {id: reason for id, reason in kept.items() if reason} == {"cat/0.jpg": "blurred", "cat/moved.jpg": "copy"}
    assert again.ids() == ["cat/0.jpg", "cat/2.jpg", "cat/3.jpg", "cat/9.jpg", "cat/moved.jpg"]
