"""Saved splits: the same after loading, for other ids, and refused if they were changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from split_examples import check_no_leak, names, with_copies

from embedpipe.errors import UsageError, WriteError
from embedpipe.splits import Splits, load_splits, make_splits


def grouped() -> Splits:
    X, y = with_copies(60, 12)
    y[[5, 6]] = 2
    return make_splits(names(72), y, task="classification", vectors=X, folds=3, repeats=2)


def from_split_column() -> Splits:
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


@pytest.mark.parametrize("make", [grouped, from_split_column])
def test_load_splits_returns_what_was_saved(make: Callable[[], Splits], tmp_path: Path) -> None:
    splits = make()
    assert splits.left_out
    path = tmp_path / "splits.parquet"
    splits.save(path)
    assert_same(load_splits(path), splits)
    assert [each.name for each in tmp_path.iterdir()] == ["splits.parquet"]
    assert set(pq.read_table(path)[f"seed {splits.resamples[0].seed} fold 0"].to_pylist()) <= {"train", "test", None}


@pytest.fixture(name="reversed_ids")
def ids_of_another_store() -> list[str]:
    """The ids of `grouped` in reverse order, and one more."""
    return [*reversed(grouped().ids), "another"]


def test_for_ids_keeps_identity_and_leaves_out_unknown_ids(reversed_ids: list[str]) -> None:
    moved = grouped().for_ids(reversed_ids)
    assert moved.identity == grouped().identity
    assert moved.ids == reversed_ids
    assert moved.left_out["that are not in the saved splits"].tolist() == [72]
    check_no_leak(moved)


def test_for_ids_keeps_the_rows_of_every_resample(reversed_ids: list[str]) -> None:
    splits = grouped()
    moved = splits.for_ids(reversed_ids)
    for before, after in zip(splits.resamples, moved.resamples, strict=True):
        assert {splits.ids[row] for row in before.train} == {reversed_ids[row] for row in after.train}
        assert before.tune is not None
        assert after.tune is not None
        for (_, first), (_, second) in zip(before.tune, after.tune, strict=True):
            assert {splits.ids[row] for row in before.train[first]} == {
                reversed_ids[row] for row in after.train[second]
            }
    assert moved.for_ids(splits.ids).resamples[0].train.tolist() == splits.resamples[0].train.tolist()


def test_seeds_of_numpy_are_saved(tmp_path: Path) -> None:
    made = [make_splits(names(20), np.arange(20.0), task="regression", seed=seed) for seed in (np.int64(3), 3)]
    made[0].save(tmp_path / "splits.parquet")
    assert_same(load_splits(tmp_path / "splits.parquet"), made[1])


def test_for_ids_may_lack_rows_that_no_resample_uses() -> None:
    splits = grouped()
    used = [id for id in splits.ids if id not in {"row-005", "row-006"}]
    assert splits.for_ids(used).identity == splits.identity


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
    with pytest.raises(WriteError, match="cannot write"):
        grouped().save(tmp_path / "a file" / "splits.parquet")


def changed(table: pa.Table, **about: Any) -> pa.Table:
    metadata = json.loads(table.schema.metadata[b"embedpipe.splits"])
    return table.replace_schema_metadata({"embedpipe.splits": json.dumps(metadata | about)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: changed(table, version=99),
            "format 99, and embedpipe .* reads format 1: install embedpipe .* newer",
        ),
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
