"""Rows of ids, whatever their order."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from embedpipe.store.id_index import IdIndex


@given(st.lists(st.text(max_size=3), unique=True, max_size=30), st.lists(st.text(max_size=3), max_size=10))
def test_rows_of_ids(ids: list[str], asked: list[str]) -> None:
    asked = list(dict.fromkeys([*asked, *ids[::2]]))
    column = pa.chunked_array([ids[:4], ids[4:]], pa.string())
    expected = [ids.index(id) if id in ids else -1 for id in asked]
    assert IdIndex(column).find(pa.array(asked, pa.string())).tolist() == expected


def test_nulls_have_no_row() -> None:
    assert IdIndex(pa.array(["b", None, "a", None])).find(pa.array(["a", "None", "b"])).tolist() == [2, -1, 0]
    assert IdIndex(pa.array([None], pa.string())).find(pa.array(["a"])).tolist() == [-1]
