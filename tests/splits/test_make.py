"""Splits: no group on both sides, even classes, split columns, and saved splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.splits.grouped import fold_numbers
from embedpipe.splits.make import Splits, load_splits, make_splits


def names(rows: int) -> list[str]:
    return [f"row-{row:03d}" for row in range(rows)]


def with_copies(rows: int, copies: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors of two classes, the last ``copies`` of which are nearly the first ones, and the classes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 24)).astype(np.float32)
    y = np.arange(rows) % 2
    X = np.concatenate([X, X[:copies] + np.float32(0.02) * rng.standard_normal((copies, 24)).astype(np.float32)])
    return X, np.concatenate([y, y[:copies]])


def check_roles(splits: Splits) -> None:
    """Hold that no row, and no group, is on two sides of any split."""
    for item in splits.resamples:
        assert (np.diff(item.train) > 0).all()
        assert (np.diff(item.test) > 0).all()
        sides = [(item.train, item.test)] + [(item.train[a], item.train[b]) for a, b in item.tune or ()]
        for train, test in sides:
            assert len(train)
            assert len(test)
            assert not {*train.tolist()} & {*test.tolist()}
            if splits.groups is not None:
                assert not {*splits.groups[train].tolist()} & {*splits.groups[test].tolist()}


# ---------------------------------------------------------------- folds


@st.composite
def dealings(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(2, 200))
    classes = np.unique(rng.integers(0, draw(st.integers(1, 8)), rows), return_inverse=True)[1]
    groups = np.unique(rng.integers(0, draw(st.integers(1, 2 * rows)), rows), return_inverse=True)[1]
    return classes, groups, draw(st.integers(2, 6)), draw(st.integers(0, 1000))


@settings(max_examples=100, deadline=None)
@given(dealings())
def test_fold_numbers_keep_groups_whole_and_classes_even(
    problem: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int, int],
) -> None:
    classes, groups, folds, seed = problem
    numbers = fold_numbers(classes, groups, folds, np.random.default_rng(seed))
    assert all(len(set(numbers[groups == group])) == 1 for group in set(groups))
    assert len(set(numbers)) == min(folds, len(set(groups)))
    alone = fold_numbers(classes, None, folds, np.random.default_rng(seed))
    assert np.ptp(np.bincount(alone, minlength=folds)) <= 1
    for kind in set(classes):
        assert np.ptp(np.bincount(alone[classes == kind], minlength=folds)) <= 1
        pure = {group for group in set(groups) if (classes[groups == group] == kind).all()}
        if len(pure) >= folds:
            assert set(numbers[classes == kind]) == set(range(folds))


def test_fold_numbers_are_as_even_as_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    sizes = np.minimum(rng.zipf(1.8, 300), 60)
    groups = np.repeat(np.arange(300), sizes)
    classes = rng.choice(5, 300, p=[0.5, 0.2, 0.15, 0.1, 0.05])[groups]
    theirs = np.zeros(len(groups), np.int64)
    split = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(groups, classes, groups)
    for number, (_, test) in enumerate(split):
        theirs[test] = number
    ours = fold_numbers(classes, groups, 5, np.random.default_rng(0))

    def unevenness(numbers: npt.NDArray[np.int64]) -> float:
        shares = np.array(
            [np.bincount(numbers[classes == kind], minlength=5) / (classes == kind).sum() for kind in range(5)]
        )
        return float(((shares - 0.2) ** 2).sum())

    assert unevenness(ours) <= unevenness(theirs) + 1e-3
    assert np.ptp(np.bincount(ours)) <= np.ptp(np.bincount(theirs)) + 2


@pytest.fixture(name="three_classes")
def splits_of_three_classes() -> Splits:
    """3 repeats of 5 folds of 75 rows in three classes, from seed 7."""
    return make_splits(names(75), np.repeat(["a", "b", "c"], [40, 25, 10]), task="classification", repeats=3, seed=7)


def test_every_row_is_tested_once_per_repeat_with_even_classes(three_classes: Splits) -> None:
    y = np.repeat(["a", "b", "c"], [40, 25, 10])
    check_roles(three_classes)
    for start in range(0, 15, 5):
        tests = [each.test for each in three_classes.resamples[start : start + 5]]
        assert np.sort(np.concatenate(tests)).tolist() == list(range(75))
        assert all(np.unique(y[test], return_counts=True)[1].tolist() == [8, 5, 2] for test in tests)


def test_resamples_are_named_by_seed_and_fold(three_classes: Splits) -> None:
    assert three_classes.description == "3 x 5-fold stratified cross-validation"
    assert [(each.seed, each.fold) for each in three_classes.resamples] == [(s, f) for s in (7, 8, 9) for f in range(5)]
    assert three_classes.resamples[0].test.tolist() != three_classes.resamples[5].test.tolist()


def test_without_groups_estimators_choose_their_own_inner_splits(three_classes: Splits) -> None:
    assert three_classes.groups is None
    assert all(each.tune is None for each in three_classes.resamples)


def test_identity_depends_on_the_seed_only(three_classes: Splits) -> None:
    y = np.repeat(["a", "b", "c"], [40, 25, 10])
    first, second = (make_splits(names(75), y, task="classification", repeats=3, seed=seed) for seed in (7, 8))
    assert first.identity == three_classes.identity
    assert second.identity != three_classes.identity


def test_repr_shows_rows_resamples_and_description(three_classes: Splits) -> None:
    assert repr(three_classes) == "Splits(75 rows, 15 resamples: 3 x 5-fold stratified cross-validation)"
    assert "<td>3 x 5-fold stratified cross-validation</td>" in three_classes._repr_html_()


# ---------------------------------------------------------------- what belongs together


@pytest.fixture(name="with_duplicates")
def splits_of_copies() -> Splits:
    """4 repeats of 5 folds of 120 rows, the last 20 of which are copies of the first ones."""
    X, y = with_copies(100, 20)
    return make_splits(names(120), y, task="classification", vectors=X, repeats=4)


def test_near_duplicates_are_in_one_group_and_on_one_side(with_duplicates: Splits) -> None:
    check_roles(with_duplicates)
    assert with_duplicates.groups is not None
    assert (with_duplicates.groups[:20] == with_duplicates.groups[100:]).all()
    assert len(np.unique(with_duplicates.groups)) == 100


def test_near_duplicates_are_described(with_duplicates: Splits) -> None:
    description = "4 x 5-fold stratified cross-validation, near-duplicates together"
    assert with_duplicates.description == description
    note = "40 rows (33.3%) are near-duplicates of others (centred cosine of at least 0.95), in 20 groups"
    assert note in with_duplicates.notes[0]


def test_inner_splits_hold_out_every_training_row_once(with_duplicates: Splits) -> None:
    first = with_duplicates.resamples[0]
    assert first.tune is not None
    held_out = np.sort(np.concatenate([rows for _, rows in first.tune]))
    assert held_out.tolist() == list(range(len(first.train)))


@pytest.mark.parametrize("options", [{}, {"vectors": with_copies(100, 20)[0], "near_duplicates": None}])
def test_copies_leak_if_near_duplicates_are_not_looked_for(options: dict[str, Any]) -> None:
    naive = make_splits(names(120), with_copies(100, 20)[1], task="classification", repeats=4, **options)
    leaks = [{*(each.train % 100).tolist()} & {*(each.test % 100).tolist()} for each in naive.resamples]
    assert all(leaks)


def test_groups_and_near_duplicates_are_merged() -> None:
    X, y = with_copies(60, 1)
    patients = [f"p{row // 3}" for row in range(60)] + ["p19"]
    splits = make_splits(names(61), y, task="classification", groups=patients, vectors=X, repeats=2)
    assert splits.groups is not None
    # Row 60 is a copy of row 0 and of the last patient: so are the rows of both.
    assert np.flatnonzero(splits.groups == splits.groups[60]).tolist() == [0, 1, 2, 57, 58, 59, 60]
    assert splits.description.endswith("groups and near-duplicates together")
    check_roles(splits)


def test_rows_without_a_group_are_groups_of_their_own() -> None:
    groups = np.array(["a", None, "a", None, float("nan"), "b"], dtype=object)
    splits = make_splits(names(6), np.arange(6.0), task="regression", groups=groups, folds=2, repeats=1)
    assert splits.groups is not None
    assert len(np.unique(splits.groups)) == 5
    numbers = make_splits(
        names(4), np.arange(4.0), task="regression", groups=np.array([1, 1, 2, 3]), folds=2, repeats=1
    )
    assert numbers.groups is not None
    assert numbers.groups.tolist() == [0, 0, 1, 2]


def test_chain_of_near_duplicates_is_noted() -> None:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    X = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    with pytest.raises(TrainingDataError, match=r"classes 0, 1 have at most 1 group \(by near-duplicates\)"):
        make_splits(names(60), np.arange(60) % 2, task="classification", vectors=X, near_duplicates=0.99)
    rng = np.random.default_rng(0)
    padded = np.zeros((120, 40), np.float32)
    padded[:60, :2] = 9 * X
    padded[60:, 2:] = rng.standard_normal((60, 38))
    splits = make_splits(names(120), np.arange(120) % 2, task="classification", vectors=padded, near_duplicates=0.99)
    assert "one group of near-duplicates holds 60 rows (50%), probably a chain" in splits.notes[1]
    assert "raise near_duplicates from 0.99, for instance to 0.995" in splits.notes[1]


def test_note_if_there_are_no_near_duplicates() -> None:
    X, y = with_copies(50, 0)
    splits = make_splits(names(50), y, task="classification", vectors=X)
    assert splits.groups is None
    assert splits.notes == ["no near-duplicates were found (centred cosine of at least 0.95)"]
    assert splits.description == "5 x 5-fold stratified cross-validation"


def test_many_rows_have_one_inner_split() -> None:
    rows = 30_000
    groups = np.arange(rows) // 2
    splits = make_splits(names(rows), np.zeros(rows), task="regression", groups=groups, folds=5, repeats=1)
    check_roles(splits)
    tune = splits.resamples[0].tune
    assert tune is not None
    assert [len(held_out) for _, held_out in tune] == [4800]


# ---------------------------------------------------------------- classes


def test_rare_class_is_left_out_with_a_note() -> None:
    y = np.repeat(["a", "b", "rare"], [30, 30, 3])
    splits = make_splits(names(63), y, task="classification")
    assert {reason: rows.tolist() for reason, rows in splits.left_out.items()} == {
        "of class 'rare', too few for 5 folds": [60, 61, 62]
    }
    assert splits.notes == [
        "class 'rare' (3 rows) left out: it has 3 rows, fewer than the 5 folds. To measure it, label more rows, or "
        "declare train and test rows in a column `split`, or use fewer folds"
    ]
    assert all(not {60, 61, 62} & {*item.train.tolist(), *item.test.tolist()} for item in splits.resamples)
    assert not make_splits(names(63), y, task="classification", folds=3).left_out


def test_class_of_few_groups_is_left_out() -> None:
    y = np.repeat(["a", "b", "c"], 20)
    groups = [*range(20), *range(20, 40), *([40] * 10 + [41] * 10)]
    splits = make_splits(names(60), y, task="classification", groups=groups)
    assert [rows.tolist() for rows in splits.left_out.values()] == [list(range(40, 60))]
    assert "it has 2 groups (by groups), fewer than the 5 folds" in splits.notes[0]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a"] * 10, "two classes or more, got 10 rows of class 'a'"),
        (
            ["a"] * 10 + ["b"] * 3,
            "class 'b' has 3 rows, fewer than the 5 folds.* label more .*`split`.*--folds 3",
        ),
        (
            ["a"] * 10 + ["b"],
            "class 'b' has 1 row, fewer than the 5 folds.* label more rows, or declare train",
        ),
        ([str(i) for i in range(9)], "classes '0', '1', '2', '3', '4' and 4 more have at most 1 row, fewer"),
    ],
)
def test_too_few_rows_per_class_are_refused(y: list[str], message: str) -> None:
    with pytest.raises(TrainingDataError, match=message):
        make_splits(names(len(y)), np.array(y), task="classification")


def test_regression_and_multilabel_are_not_stratified() -> None:
    rng = np.random.default_rng(0)
    numbers = make_splits(names(23), rng.standard_normal(23), task="regression", repeats=2)
    assert numbers.description == "2 x 5-fold cross-validation"
    labels = make_splits(names(23), rng.random((23, 4)) < 0.1, task="multilabel", repeats=2)
    assert labels.identity == numbers.identity
    assert sorted(len(item.test) for item in labels.resamples[:5]) == [4, 4, 5, 5, 5]
    with pytest.raises(TrainingDataError, match="at most the number of rows, got 5 folds for 3 rows"):
        make_splits(names(3), np.arange(3.0), task="regression")


# ---------------------------------------------------------------- the store's own split


def test_split_column_defines_train_validation_and_test() -> None:
    y = np.arange(12) % 2
    split = ["Train"] * 6 + ["val"] * 2 + ["test"] * 3 + ["extra"]
    splits = make_splits(names(12), y, task="classification", split=split)
    (item,) = splits.resamples
    assert item.train.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert item.test.tolist() == [8, 9, 10]
    assert item.tune is not None
    assert [(a.tolist(), b.tolist()) for a, b in item.tune] == [([0, 1, 2, 3, 4, 5], [6, 7])]
    assert splits.description == "test split"
    assert {reason: rows.tolist() for reason, rows in splits.left_out.items()} == {
        "whose split is not train, validation or test": [11]
    }


def test_validation_is_measured_if_there_is_no_test() -> None:
    splits = make_splits(names(8), np.arange(8) % 2, task="classification", split=["train"] * 5 + ["dev"] * 3)
    assert splits.description == "validation split"
    assert splits.resamples[0].test.tolist() == [5, 6, 7]
    assert splits.resamples[0].tune is None


def test_split_column_without_test_or_validation_is_ignored() -> None:
    splits = make_splits(names(20), np.arange(20) % 2, task="classification", split=["train"] * 19 + [None])
    assert splits.description == "5 x 5-fold stratified cross-validation"


def test_copies_of_test_rows_are_not_trained_on() -> None:
    X, y = with_copies(100, 20)
    # Rows 0 to 9 are tested, and their copies 100 to 109 in train; the copies of 10 to 19 are in validation.
    split = ["test"] * 10 + ["train"] * 90 + ["train"] * 10 + ["validation"] * 10
    splits = make_splits(names(120), y, task="classification", split=split, vectors=X)
    (item,) = splits.resamples
    check_roles(splits)
    assert item.test.tolist() == list(range(10))
    assert item.train.tolist() == [*range(10, 100), *range(110, 120)]
    assert item.tune is not None
    ((chosen, held_out),) = item.tune
    assert item.train[held_out].tolist() == list(range(110, 120))
    assert item.train[chosen].tolist() == list(range(20, 100))
    assert "10 training rows (9.1%) share a group with 10 test rows (100.0%) by near-duplicates" in splits.notes[1]
    assert [rows.tolist() for rows in splits.left_out.values()] == [list(range(100, 110))]
    assert splits.description == "test split, near-duplicates of its rows not trained on"


def test_split_with_near_duplicates_only_in_train_is_refused() -> None:
    rng = np.random.default_rng(0)
    X = np.tile(rng.standard_normal((10, 8)), (2, 1)).astype(np.float32)
    split = ["train"] * 10 + ["test"] * 10
    with pytest.raises(
        TrainingDataError, match=r"no training row is left beside the test split.* raise near_duplicates"
    ):
        make_splits(names(20), np.arange(20) % 2, task="classification", split=split, vectors=X)


def test_class_only_in_test_is_noted() -> None:
    y = np.array(["a", "b"] * 4 + ["c"])
    splits = make_splits(names(9), y, task="classification", split=["train"] * 6 + ["test"] * 3)
    assert splits.notes == ["test rows of class 'c' count as wrong: no training row of that class is left"]


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be >= 2"),
        ({"repeats": 0}, "repeats >= 1, .* repeats=0"),
        ({"groups": ["a"]}, "groups must have one value per row, got 1 values for 20 rows"),
        ({"vectors": np.ones((3, 2), np.float32)}, "got 3 vectors for 20 ids"),
        ({"vectors": np.ones((20, 2), np.float32), "near_duplicates": 2.0}, r"in \(0, 1\], got 2.0"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_splits(names(20), np.arange(20) % 2, task="classification", **options)


def test_ids_must_be_unique_and_one_per_row() -> None:
    for ids in (["a", "a", "b", "c"], ["a", "b"]):
        with pytest.raises(UsageError, match="ids must be unique, one per row"):
            make_splits(ids, np.arange(4) % 2, task="classification", folds=2)


# ---------------------------------------------------------------- kept


def grouped() -> Splits:
    X, y = with_copies(60, 12)
    y[[5, 6]] = 2
    return make_splits(names(72), y, task="classification", vectors=X, folds=3, repeats=2)


def by_roles() -> Splits:
    split = ["train"] * 12 + ["validation"] * 6 + ["test"] * 6 + [None]
    return make_splits(names(25), np.arange(25) % 2, task="classification", split=split)


def assert_same(first: Splits, second: Splits) -> None:
    assert first.identity == second.identity
    assert (first.ids, first.description, first.notes) == (second.ids, second.description, second.notes)
    assert (first.groups is None) == (second.groups is None)
    assert first.groups is None or second.groups is None or (first.groups == second.groups).all()
    assert [*first.left_out] == [*second.left_out]
    assert all((first.left_out[reason] == second.left_out[reason]).all() for reason in first.left_out)
    for item, other in zip(first.resamples, second.resamples, strict=True):
        assert (item.seed, item.fold) == (other.seed, other.fold)
        assert item.train.tolist() == other.train.tolist()
        assert item.test.tolist() == other.test.tolist()
        tunes = [[(a.tolist(), b.tolist()) for a, b in each.tune or ()] for each in (item, other)]
        assert tunes[0] == tunes[1]
        assert (item.tune is None) == (other.tune is None)


@pytest.mark.parametrize("make", [grouped, by_roles])
def test_load_splits_returns_what_was_saved(make: Callable[[], Splits], tmp_path: Path) -> None:
    splits = make()
    assert splits.left_out
    path = tmp_path / "splits.parquet"
    splits.save(path)
    assert_same(load_splits(path), splits)
    assert [each.name for each in tmp_path.iterdir()] == ["splits.parquet"]
    assert set(pq.read_table(path)[f"seed {splits.resamples[0].seed} fold 0"].to_pylist()) <= {"train", "test", None}


def test_the_order_of_rows_does_not_change_what_splits_are() -> None:
    splits = grouped()
    ids = [*reversed(splits.ids), "another"]
    moved = splits.for_ids(ids)
    assert moved.identity == splits.identity
    assert moved.ids == ids
    check_roles(moved)
    assert moved.left_out["that are not in the saved splits"].tolist() == [72]
    for item, other in zip(splits.resamples, moved.resamples, strict=True):
        assert {splits.ids[row] for row in item.train} == {ids[row] for row in other.train}
        assert item.tune is not None
        assert other.tune is not None
        for (_, first), (_, second) in zip(item.tune, other.tune, strict=True):
            assert {splits.ids[row] for row in item.train[first]} == {ids[row] for row in other.train[second]}
    assert moved.for_ids(splits.ids).resamples[0].train.tolist() == splits.resamples[0].train.tolist()
    # Rows that take no part may be missing.
    assert splits.for_ids([id for id in splits.ids if id not in {"row-005", "row-006"}]).identity == splits.identity


def test_missing_or_duplicate_ids_are_refused() -> None:
    with pytest.raises(UsageError, match="2 of the 70 ids of these splits are missing, such as 'row-000', 'row-001'"):
        grouped().for_ids(names(72)[2:])
    with pytest.raises(UsageError, match="ids must be unique: 1 of 3 are duplicates"):
        grouped().for_ids(["a", "a", "b"])


def test_files_without_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read splits"):
        load_splits(tmp_path / "nothing.parquet")
    path = tmp_path / "splits.parquet"
    path.write_text("seed,fold")
    with pytest.raises(UsageError, match="cannot read splits"):
        load_splits(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(UsageError, match="holds no splits"):
        load_splits(path)
    with pytest.raises(UsageError, match=r"must end in \.parquet"):
        grouped().save(tmp_path / "splits.json")
    (tmp_path / "a file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        grouped().save(tmp_path / "a file" / "splits.parquet")


def changed(table: pa.Table, **about: Any) -> pa.Table:
    metadata = json.loads(table.schema.metadata[b"embedpipe.splits"])
    return table.replace_schema_metadata({"embedpipe.splits": json.dumps(metadata | about)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: changed(table, version=99), "format version 99, and this embedpipe reads version 1"),
        (lambda table: changed(table, resamples=[[9, 9, None]]), "damaged or changed"),
        (lambda table: changed(table, resamples=3), "damaged or changed"),
        (lambda table: table.slice(1), "damaged or changed"),
        (lambda table: table.drop_columns(["id"]), "damaged or changed"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "damaged or changed"),
    ],
)
def test_changed_files_are_refused(change: Callable[[pa.Table], pa.Table], message: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.parquet"
    grouped().save(path)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(UsageError, match=message):
        load_splits(path)
