"""Names and types of the columns of a store, and text that is not UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stored import make_store

import embedpipe
from embedpipe import FeatureStore
from embedpipe.errors import Failure, UsageError
from embedpipe.store.schema import require_column, storable

#: What Python reads for a byte of an argument or file name that is not UTF-8.
HALF = "\udcff"


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "store", np.ones((2, 3)))


def test_unknown_label_points_to_the_column_that_holds_labels() -> None:
    """After ``embed(label="kind")``, ``fit(label="kind")`` is the usual mistake."""
    with pytest.raises(UsageError, match=r"'kind' \(label=\.\.\.\); embed stores labels in the column 'label'"):
        require_column("kind", ["id", "label"], "photos.features", "label")
    with pytest.raises(UsageError) as unlabelled:
        require_column("kind", ["id"], "photos.features", "label")
    assert "embed stores" not in str(unlabelled.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda store: FeatureStore(f"{store.path}{HALF}"),
        lambda store: store.take([HALF]),
        lambda store: store.remove([HALF]),
        lambda store: embedpipe.forget(store, [HALF]),
        lambda store: store.label(pa.table({"id": ["row-000"], "label": ["a"]}), into=HALF),
    ],
    ids=["path", "take", "remove", "forget", "column"],
)
def test_text_that_is_not_utf_8_is_refused(use: Callable[[FeatureStore], Any], store: FeatureStore) -> None:
    with pytest.raises(UsageError, match="must be UTF-8"):
        use(store)
    assert len(store.refresh()) == 2


def test_failure_of_a_file_with_any_name_is_recorded(store: FeatureStore) -> None:
    store.failures_table.record([Failure("x", f"/{HALF}", "read", "ValueError", f"cannot load {HALF}")], "r")
    failures = store.failures()
    assert (failures["uri"].to_pylist(), failures["message"].to_pylist()) == (["/\\xff"], ["cannot load \\xff"])


def test_a_value_with_the_name_of_nothing_is_counted_too(tmp_path: Path) -> None:
    store = make_store(tmp_path / "labelled", np.ones((4, 3)), label=["(none)", "a", None, "a"])
    assert store.counts("label") == {"(none)": 2, "a": 2}


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 2001], pa.timestamp("ns")),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array([1, None, 2], pa.uint64()),
    ],
    ids=lambda values: str(values.type),
)
def test_values_of_a_dictionary_are_stored_as_values(values: pa.Array) -> None:
    coded = pa.DictionaryArray.from_arrays(pa.array([2, None, 0, 1], pa.uint32()), values).slice(1)
    plain = pa.array([None, *values.to_pylist()[:2]], values.type)
    assert storable(pa.table({"x": coded})).equals(storable(pa.table({"x": plain})))
