"""Splits by a split column: who is trained on, who is measured on, and what is left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from split_examples import check_no_leak, names, with_copies

from embedpipe.errors import TrainingDataError
from embedpipe.splits import make_splits


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
    # The copies 100 to 109 of the test rows 0 to 9 are in train, those of rows 10 to 19 in validation.
    split = ["test"] * 10 + ["train"] * 90 + ["train"] * 10 + ["validation"] * 10
    splits = make_splits(names(120), y, task="classification", split=split, vectors=X)
    (item,) = splits.resamples
    check_no_leak(splits)
    assert item.test.tolist() == list(range(10))
    assert item.train.tolist() == [*range(10, 100), *range(110, 120)]
    assert item.tune is not None
    ((chosen, held_out),) = item.tune
    assert item.train[held_out].tolist() == list(range(110, 120))
    assert item.train[chosen].tolist() == list(range(20, 100))
    assert "10 training rows (9.1 %) share a group with 10 test rows (100.0 %) by near-duplicates" in splits.notes[1]
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


def test_missing_names_of_pandas_are_no_split() -> None:
    split = pd.Series(["train"] * 5 + ["test"] * 3 + [None] * 2, dtype="string")
    splits = make_splits(names(10), np.arange(10) % 2, task="classification", split=split)
    assert splits.resamples[0].test.tolist() == [5, 6, 7]
    assert [rows.tolist() for rows in splits.left_out.values()] == [[8, 9]]
