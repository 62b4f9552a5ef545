"""Long listings lie in a file without a name."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedpipe._utils.config import cache_folder
from embedpipe.sources import SourceOptions, open_source
from embedpipe.sources.columns import spool
from embedpipe.sources.columns.spool import Spool, spooled
from embedpipe.sources.tables import table_files


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "KEPT_BYTES", 100)


@given(st.lists(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=5), max_size=8))
def test_a_spool_gives_back_what_it_took(parts: list) -> None:
    made = Spool()
    made._most = 100
    for part in parts:
        made.add(pa.table({"x": pa.array(part, pa.string())}))
    assert [table["x"].to_pylist() for table in made.finish()] == parts


@pytest.mark.usefixtures("small")
def test_tables_of_several_schemas_leave_no_file() -> None:
    tables = [pa.table({f"column {i % 3}": [i] * 50}) for i in range(7)]
    made = Spool()
    for table in tables:
        made.add(table)
    assert made.finish() == tables
    assert [*(cache_folder() / "listings").iterdir()] == []


@pytest.mark.usefixtures("small")
def test_what_a_full_disk_does_not_take_stays_in_memory() -> None:
    before, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        column = spooled((pa.array(range(i, i + 40)) for i in range(0, 400, 40)), pa.int64())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, action)
    assert column.to_pylist() == [*range(400)]


@pytest.mark.usefixtures("small")
def test_listings_on_disk_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": [f"m-{i}" for i in range(50)], "text": ["win"] * 50, "label": ["ham", None] * 25})
    pq.write_table(table.append_column("n", pa.array(range(50))), tmp_path / "texts.parquet", row_group_size=9)
    options = SourceOptions(text="text")
    in_memory = open_source(tmp_path / "texts.parquet", options, "text")
    monkeypatch.setattr(table_files, "SPOOLED_ROWS", 10)
    monkeypatch.setattr(table_files, "CHUNK_ROWS", 7)
    listing = open_source(tmp_path / "texts.parquet", options, "text")
    assert listing.table == in_memory.table
    assert (listing.notes, listing.read(33)) == (in_memory.notes, "win")


def test_a_large_table_may_have_no_column_but_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": [f"win {i}" for i in range(50)]}), tmp_path / "texts.parquet", row_group_size=9)
    pq.write_table(pa.table({"text": ["few"] * 5}), tmp_path / "more.parquet")
    monkeypatch.setattr(table_files, "SPOOLED_ROWS", 10)
    listing = open_source(f"{tmp_path}/*.parquet", SourceOptions(), "text")
    assert listing.table.num_rows == 55
    assert [listing.read(4), listing.read(54)] == ["few", "win 49"]
