"""Split rows: rare classes, and classes without training rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stored import clusters, make_store

import embedpipe
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.split_rows import NO_CLASS, hold_out_training_rows, read_split_rows
from embedpipe.store import FeatureStore

NO_GROUPS = SplitOptions(near_duplicates="off")


def test_class_too_rare_to_split_is_left_out(tmp_path: Path) -> None:
    X, y = clusters(63, classes=2)
    label = [*np.array(["a", "c"])[y[:60]].tolist(), "b", "b", "b"]
    split = read_split_rows(make_store(tmp_path / "store", X, label=label), "label", NO_GROUPS)
    assert split.classes.tolist() == ["a", "c"]
    used = np.concatenate([split.train, split.validation, split.test])
    assert sorted(used.tolist()) == list(range(60))
    assert split.classes[split.y[used]].tolist() == [label[row] for row in used]
    assert (split.y[60:] == NO_CLASS).all()
    assert "class 'b' (3 rows) left out" in split.splits.notes[0]
    assert "column `split`" in split.splits.notes[0]


def test_excluded_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    X, y = clusters(60, classes=2)
    store = make_store(tmp_path / "store", X, label=np.array(["a", "c"])[y].tolist())
    store.exclude(pa.table({"id": store.ids()[:2], "excluded": ["copy", "copy"]}))
    split = read_split_rows(FeatureStore(store.path), "label", NO_GROUPS)
    assert len(split.ids) == 58
    assert split.splits.notes == ["left out: 2 rows marked as excluded"]


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_rows_are_refused(tmp_path: Path, count: int) -> None:
    X, _ = clusters(20)
    label = ["a"] * (20 - count) + ["b"] * count
    with pytest.raises(TrainingDataError, match=r"label more rows, or declare .* in a column `split`"):
        read_split_rows(make_store(tmp_path / "store", X, label=label), "label", NO_GROUPS)


def test_rare_classes_of_a_split_column_are_training_rows(tmp_path: Path) -> None:
    X, y = clusters(80, classes=2)
    rare = [f"rare {i}" for i in range(10)]
    label = [*np.array(["a", "b"])[y[:70]].tolist(), *rare]
    named = ["test" if i % 5 == 0 and i < 70 else "train" for i in range(80)]
    group = [f"patient {i // 2}" if i >= 70 or i % 5 else None for i in range(80)]
    for name, options in (("alone", NO_GROUPS), ("groups", SplitOptions(near_duplicates="off", group="group"))):
        columns = {"label": label, "split": named, "group": group if options.group else None}
        split = read_split_rows(make_store(tmp_path / name, X, **columns), "label", options)
        assert {*split.classes[split.y[split.train]]} == {"a", "b", *rare}
        assert len(split.validation)
        if split.splits.groups is not None:
            sides = (split.splits.groups[side] for side in (split.train, split.validation))
            assert not np.intersect1d(*sides).size


def test_classes_without_training_rows(tmp_path: Path) -> None:
    """A class with validation rows only is moved to training; one with test rows only is left out with a note."""
    X, y = clusters(60, classes=2)
    label, named = np.array(["a", "b"])[y].tolist(), ["train", "train", "validation", "test"] * 15
    label[2], label[3] = "seen late", "never seen"
    split = read_split_rows(make_store(tmp_path / "store", X, label=label, split=named), "label", NO_GROUPS)
    assert split.classes.tolist() == ["a", "b", "seen late"]
    assert 2 in split.train
    assert len(split.train) == 31
    assert len(split.validation) == 14
    assert 3 not in split.test
    assert split.y[3] == NO_CLASS
    assert "rows of 'never seen' are left out: the class has no training rows" in split.splits.notes


def test_holding_out_rows_without_a_class_of_the_others_is_refused(tmp_path: Path) -> None:
    X, y = clusters(10, classes=2, seed=0)
    named = ["test"] * 5 + ["validation"] * 2 + ["train"] * 3
    store = make_store(tmp_path / "s", X, label=["ab"[value] for value in y], split=named)
    with pytest.raises(TrainingDataError, match="5 training and validation rows are too few to hold out"):
        hold_out_training_rows(read_split_rows(store, "label", SplitOptions(near_duplicates="off")))


def test_splits_that_do_not_exist_are_refused_and_not_made(tmp_path: Path) -> None:
    X, y = clusters(40, classes=2)
    store = make_store(tmp_path / "store", X, label=["ab"[value] for value in y])
    path = tmp_path / "slip.parquet"
    with pytest.raises(UsageError, match=r"slip.parquet' does not exist: `embedpipe evaluate` with splits writes one"):
        embedpipe.advise(store, splits=str(path), progress=False)
    assert not path.exists()


@pytest.mark.parametrize("rows", [6, 40])
def test_messages_advise_no_option_that_fine_tuning_does_not_have(tmp_path: Path, rows: int) -> None:
    X, _ = clusters(rows, classes=2)
    few, fractions = [f"class {row % (rows // 2)}" for row in range(rows)], [row + 0.5 for row in range(rows)]
    store = make_store(tmp_path / "store", X, label=few, price=fractions)
    for column in ("label", "price"):
        with pytest.raises(TrainingDataError) as error:
            read_split_rows(store, column, NO_GROUPS)
        assert "folds=" not in str(error.value)
        assert "task=" not in str(error.value)
