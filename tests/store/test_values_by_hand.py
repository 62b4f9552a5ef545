"""`FeatureStore.label`: what a table in memory may give as ids, labels and splits, and what is stored of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from stored import make_store

from embedpipe import FeatureStore
from embedpipe.errors import SourceError, StoreError, TrainingDataError, UsageError
from embedpipe.evaluation.shared_rows import check_labels
from embedpipe.sources import open_source


def numbered(path: Path, count: int = 4, **columns: Any) -> FeatureStore:
    """Return a store whose ids are ``row-000`` and so on."""
    return make_store(path, np.eye(count), **columns)


def test_labels_are_cleaned_as_by_embed_and_the_command_line(tmp_path: Path) -> None:
    store = numbered(tmp_path / "s.features", label=["a", "a", "a", "a"])
    table = pd.DataFrame({"id": store.ids(), "label": [" b ", "", "a", None]})
    store.label(table)
    assert store.refresh().to_arrow(["label"])["label"].to_pylist() == ["b", None, "a", None]
    store.label(pa.table({"id": store.ids()[:1], "label": [["red", "round"]]}))
    assert store.refresh().counts("label")["red;round"] == 1


@pytest.mark.parametrize("labels", [[None, None], []])
def test_numbers_are_cleared_by_a_column_of_text_without_a_value(tmp_path: Path, labels: list[Any]) -> None:
    store = numbered(tmp_path / "s.features", label=[1, 2, 3, 4])
    ids = store.ids()[: len(labels)]
    change = store.label(pa.table({"id": pa.array(ids, pa.string()), "label": pa.array(labels, pa.string())}))
    assert change.replaced == len(labels)
    assert store.refresh().to_arrow(["label"])["label"].to_pylist() == [*labels, *range(len(labels) + 1, 5)]


def test_splits_are_text_as_embed_stores_them(tmp_path: Path) -> None:
    store = numbered(tmp_path / "s.features")
    store.label(pa.table({"id": store.ids(), "fold": [0, 1, 0, 1]}), label="fold", into="split")
    assert store.refresh().schema.field("split").type == pa.string()
    assert store.to_numpy(split="0").shape == (2, 4)


def test_a_split_is_read_from_numbers_of_an_earlier_version(tmp_path: Path) -> None:
    store = numbered(tmp_path / "s.features", split=[0, 1, 0, 1])
    assert store.to_numpy(split="1").shape == (2, 4)
    with pytest.raises(UsageError, match=r"has no split '2'.* Available: 0, 1"):
        store.to_numpy(split="2")


def test_a_row_whose_label_is_nan_is_left_out(tmp_path: Path) -> None:
    store = numbered(tmp_path / "s.features", label=[0.0, float("nan"), 1.0, 1.0])
    with pytest.warns(UserWarning, match="1 of 4 rows have no 'label'"):
        X, y = store.to_numpy("label")
    assert y.tolist() == [0.0, 1.0, 1.0]
    assert np.array_equal(X, np.eye(4)[[0, 2, 3]])


def test_a_store_whose_label_is_nan_does_not_disagree(tmp_path: Path) -> None:
    stores = [numbered(tmp_path / f"{last}.features", label=[0.0, 1.0, 1.0, last]) for last in (0.0, float("nan"), 1.0)]
    rows = stores[0].to_arrow(["id", "label"])
    check_labels(rows, "label", stores[0], stores[1:2])
    with pytest.raises(TrainingDataError, match=r"stores must agree on 'label', and 1 items differ .*'row-003'"):
        check_labels(rows, "label", stores[0], stores[1:])


@pytest.mark.parametrize(("ids", "words"), [([["a"]], r"\['a'\]"), ([b"\xff"], "ff")])
def test_ids_without_a_text_are_refused(tmp_path: Path, ids: list[Any], words: str) -> None:
    store = numbered(tmp_path / "s.features")
    with pytest.raises(SourceError, match=f"column 'id' must hold ids as text or integers, and row 1 .*{words}"):
        store.label(pa.table({"id": ids, "label": ["a"]}))


def test_whole_floats_are_integers_as_ids(tmp_path: Path) -> None:
    """Where an id is missing, pandas makes floats of integers."""
    barcodes = pd.DataFrame({"id": [4006381333931.0, None, 5.0], "text": ["a", "b", "c"]})
    listing = open_source(barcodes, modality="text")
    assert listing.table["id"].to_pylist() == ["4006381333931", "5"]
    assert [failure.id for failure in listing.failures] == ["row 2 of the table"]
    with pytest.raises(SourceError, match="last digits of an id are lost: read the column as text"):
        open_source(pd.DataFrame({"id": [2.0**60, 5.0], "text": ["a", "b"]}), modality="text")


@pytest.mark.parametrize(("kind", "largest"), [(np.float16, 2**11), (np.float32, 2**24)])
def test_short_floats_are_ids_up_to_their_digits(kind: type, largest: int) -> None:
    rows = {"id": np.array([largest, 5], kind), "text": ["a", "b"]}
    assert open_source(pa.table(rows), modality="text").table["id"].to_pylist() == [str(largest), "5"]
    with pytest.raises(SourceError, match="last digits of an id are lost: read the column as text"):
        open_source(pa.table(rows | {"id": np.array([largest + 2, 5], kind)}), modality="text")


def test_vectors_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    made = make_store(tmp_path / "made.features", np.where(np.eye(4) == 1, [1, 1, np.nan, 1], 0))
    with pytest.raises(StoreError, match=r"vectors of new rows of .* must be finite, and that of 'row-002' .* is not"):
        numbered(tmp_path / "s.features").write(made.to_arrow())
