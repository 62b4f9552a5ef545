"""`make_splits`: no group on both sides, even classes, notes on what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from split_examples import check_no_leak, names, with_copies

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.splits import Splits, make_splits


@pytest.fixture(name="three_classes")
def splits_of_three_classes() -> Splits:
    """3 repeats of 5 folds of 75 rows in three classes, from seed 7."""
    return make_splits(names(75), np.repeat(["a", "b", "c"], [40, 25, 10]), task="classification", repeats=3, seed=7)


def test_every_row_is_tested_once_per_repeat_with_even_classes(three_classes: Splits) -> None:
    y = np.repeat(["a", "b", "c"], [40, 25, 10])
    check_no_leak(three_classes)
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
    assert ">3 x 5-fold stratified cross-validation</td>" in three_classes._repr_html_()


# ---------------------------------------------------------------- groups and near-duplicates


@pytest.fixture(name="with_duplicates")
def splits_of_copies() -> Splits:
    """4 repeats of 5 folds of 120 rows, the last 20 of which are copies of the first ones."""
    X, y = with_copies(100, 20)
    return make_splits(names(120), y, task="classification", vectors=X, repeats=4)


def test_near_duplicates_are_in_one_group_and_on_one_side(with_duplicates: Splits) -> None:
    check_no_leak(with_duplicates)
    assert with_duplicates.groups is not None
    assert (with_duplicates.groups[:20] == with_duplicates.groups[100:]).all()
    assert len(np.unique(with_duplicates.groups)) == 100


def test_near_duplicates_are_described(with_duplicates: Splits) -> None:
    description = "4 x 5-fold stratified cross-validation, near-duplicates together"
    assert with_duplicates.description == description
    note = "40 rows (33.3 %) are near-duplicates of others (centred cosine of at least 0.95), in 20 groups"
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
    # Row 60 is a copy of row 0 and has the group of the last patient, which connects both groups.
    assert np.flatnonzero(splits.groups == splits.groups[60]).tolist() == [0, 1, 2, 57, 58, 59, 60]
    assert splits.description.endswith("groups and near-duplicates together")
    check_no_leak(splits)


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


def test_missing_groups_of_pandas_are_groups_of_their_own() -> None:
    pandas = pytest.importorskip("pandas")
    patients = pandas.Series([1, 1, None, None], dtype="Int64")  # None becomes pandas.NA
    splits = make_splits(names(4), np.arange(4.0), task="regression", groups=patients, folds=2, repeats=1)
    assert splits.groups is not None
    assert splits.groups.tolist() == [0, 0, 1, 2]


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
    assert "one group of near-duplicates has 60 rows (50 %), probably a chain" in splits.notes[1]
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
    check_no_leak(splits)
    tune = splits.resamples[0].tune
    assert tune is not None
    assert [len(held_out) for _, held_out in tune] == [4800]


def test_few_groups_of_many_rows_are_never_an_empty_inner_split() -> None:
    rows, tested = 21_000, 500
    groups, split = np.arange(rows) % 3, np.array(["train"] * (rows - tested) + ["test"] * tested)
    groups[-tested:] = 3
    splits = make_splits(names(rows), np.arange(rows) % 2, task="classification", groups=groups, split=split, seed=2)
    tune = splits.resamples[0].tune
    assert tune is not None
    assert 6_000 < len(tune[0][1]) < 7_000


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
    of_pandas = make_splits(names(63), y.astype(object), task="classification")
    assert (of_pandas.notes, of_pandas.identity) == (splits.notes, splits.identity)


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
            "class 'b' has 3 rows, fewer than the 5 folds.* label more .*`split`.*folds=3",
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


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds must be >= 2 and repeats >= 1, got 1 and 5"),
        ({"groups": ["a"]}, "groups must have one value per row, got 1 values for 20 rows"),
        ({"groups": [["a", "b"]] * 20}, r"a group must be one value per row, .* got a list: \['a', 'b'\]"),
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


def test_labels_may_be_a_list() -> None:
    y = ["a", "b"] * 20
    listed = make_splits(names(40), y, task="classification")
    assert listed.identity == make_splits(names(40), np.array(y), task="classification").identity
    assert all(np.unique(np.array(y)[each.test], return_counts=True)[1].tolist() == [4, 4] for each in listed.resamples)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": "classfication"}, "did you mean 'classification'"),
        ({"folds": 2.5}, "folds and repeats must be integers, got 2.5 and 5"),
        ({"repeats": 0}, "folds must be >= 2 and repeats >= 1, got 5 and 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"split": ["train"] * 9 + ["test"]}, "split must have one name per row, got 10 names for 40 rows"),
        ({"ids": range(40)}, "ids must be a sequence of strings"),
        ({"ids": [], "y": []}, "ids must be unique, one per row, got 0 ids"),
    ],
)
def test_what_cannot_be_split_is_refused(changed: dict[str, Any], message: str) -> None:
    given = {"ids": names(40), "y": ["a", "b"] * 20, "task": "classification"} | changed
    with pytest.raises(UsageError, match=message):
        make_splits(given.pop("ids"), given.pop("y"), **given)


@pytest.mark.parametrize("y", [[None, "a"] * 20, [float("nan"), *"ab" * 19, "a"], np.r_[np.nan, np.arange(39.0)]])
def test_rows_without_a_label_are_refused(y: Any) -> None:
    task = "regression" if isinstance(y, np.ndarray) else "classification"
    with pytest.raises(TrainingDataError, match="every row must have a label, and row 1 has none"):
        make_splits(names(40), y, task=task)
