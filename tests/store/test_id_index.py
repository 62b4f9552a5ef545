"""Rows in the order of their ids, and `IdIndex`: rows of ids in any order."""

from __future__ import annotations

from unittest import mock

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpipe.errors import StoreError
from embedpipe.store import id_index
from embedpipe.store.id_index import IdIndex, checked_rows, in_id_order
from embedpipe.store.schema import VECTOR


@given(st.lists(st.text(max_size=3), unique=True, max_size=30), st.lists(st.text(max_size=3), max_size=10))
def test_find_returns_rows_of_ids(ids: list[str], queries: list[str]) -> None:
    queries = list(dict.fromkeys([*queries, *ids[::2]]))
    column = pa.chunked_array([ids[:4], ids[4:]], pa.string())
    expected = [ids.index(id) if id in ids else -1 for id in queries]
    assert IdIndex(column).find(pa.array(queries, pa.string())).tolist() == expected


def test_more_text_than_small_offsets_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index, "LARGE_BYTES", 1)
    index = IdIndex(pa.chunked_array([["b", "d"], ["a"]]))
    assert index.find(pa.array(["d", "c", "a"])).tolist() == [1, -1, 2]
    assert index.mask(pa.array([*"abcdefghij"] * 5)).to_pylist() == [True, True, False, True, *[False] * 6] * 5


@given(st.lists(st.tuples(st.text(max_size=2), st.one_of(st.none(), st.binary(max_size=9))), max_size=20))
def test_rows_in_id_order_are_whole_beyond_small_offsets(pairs: list[tuple[str, bytes | None]]) -> None:
    ids = [id for id, _ in pairs]
    columns = {
        "id": pa.array(ids, pa.string()),
        "bytes": pa.array([octets for _, octets in pairs], pa.binary()),
        "vector": pa.array([[float(number)] * 3 for number in range(len(ids))], VECTOR),
    }
    table = pa.table(columns)
    chunks = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    with mock.patch.object(id_index, "LARGE_BYTES", 8):
        rows = in_id_order(chunks)
    assert rows.equals(table.take(pc.sort_indices(table["id"])))


def test_rows_in_id_order_are_not_copied() -> None:
    rows = pa.table({"id": ["a", "b"], "text": ["one", "two"]})
    assert in_id_order(rows) is rows


def test_nulls_have_no_row() -> None:
    assert IdIndex(pa.array(["b", None, "a", None])).find(pa.array(["a", "None", "b"])).tolist() == [2, -1, 0]
    assert IdIndex(pa.array([None], pa.string())).find(pa.array(["a"])).tolist() == [-1]


@given(st.lists(st.text(max_size=2), unique=True, max_size=3), st.lists(st.text(max_size=2), unique=True, max_size=60))
def test_mask_marks_the_ids_that_have_a_row(ids: list[str], queries: list[str]) -> None:
    mask = IdIndex(pa.array(ids, pa.string())).mask(pa.array(queries, pa.string()))
    assert mask.to_pylist() == [id in ids for id in queries]


def test_new_rows_beyond_small_offsets_are_sorted_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(id_index, "LARGE_BYTES", 8)
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("text", pa.string())])
    rows = pa.table({"id": [*"dbac"], "text": ["d" * 9, "b" * 9, "a" * 9, None]}, schema)
    checked = checked_rows(rows, rows, "s", {})
    assert checked.equals(rows.take([2, 1, 3, 0]))
    assert checked["text"].num_chunks > 1  # none of more than offsets reach
    with pytest.raises(StoreError, match="must be unique, and '' occurs twice"):
        checked_rows(rows, pa.table({"id": ["b", "", ""], "text": [""] * 3}, schema), "s", {})
