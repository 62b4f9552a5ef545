"""Which data files of a table are missing or damaged, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpipe._utils.checksums import checksum, file_checksum
from embedpipe.errors import StoreError
from embedpipe.sources.access.outage import refusal
from embedpipe.store.data_files import DATA_FILE, DataFile, is_shortage, read_ids
from embedpipe.store.keyed_table import KeyedTable


def find_damage(table: KeyedTable, files: Iterable[DataFile] | None = None) -> Iterator[tuple[DataFile, str | None]]:
    """Yield each data file, by default of the table's version, and what is wrong with it.

    All bytes are read, and compared with the file's name, the log and the schema. Of a file that cannot be read though
    it may be whole, nothing can be said: raises StoreError if this user may not open it or the storage refuses, and
    OSError or MemoryError as `is_shortage`.
    """
    for file in table.files if files is None else files:
        try:
            yield file, _damage(table, file)
        except (StoreError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
            cause = error.__cause__ or error
            if isinstance(cause, PermissionError) or is_shortage(cause) or refusal(str(cause)):
                raise
            yield file, str(cause)


def _damage(table: KeyedTable, file: DataFile) -> str | None:
    with table.open_bytes(file) as source:
        data = source.read_buffer()
    if data.size != file.size:
        return f"{data.size:,} bytes where the log says {file.size:,}"
    match = DATA_FILE.fullmatch(file.path)
    if match and checksum(memoryview(data)) != match[1]:
        return "its bytes have another checksum than when they were written"
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as parquet:
        names = {*parquet.schema_arrow.names}
        if unknown := names - {*table.schema.names}:
            return f"the store has no columns {sorted(unknown)}"
        if missing := {field.name for field in table.schema if not field.nullable} - names:
            return f"it lacks the columns {sorted(missing)}"
        ids = read_ids(parquet)
    bounds = pc.min_max(ids)
    found = (len(ids), bounds["min"].as_py(), bounds["max"].as_py())
    if found != (file.rows, file.first, file.last):
        return f"it holds {found[0]:,} rows from {found[1]!r} to {found[2]!r}, and the log says otherwise"
    return None


def as_on_disk(folder: Path, name: str) -> DataFile | None:
    """Return the entry of a data file as the file itself tells it; None if it is damaged. Raises as `is_shortage`."""
    path, match = folder / name, DATA_FILE.fullmatch(name)
    try:
        if match and file_checksum(path) != match[1]:
            return None
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            ids = read_ids(parquet)
        bounds = pc.min_max(ids)
        file = DataFile(name, len(ids), path.stat().st_size, bounds["min"].as_py(), bounds["max"].as_py())
    except (OSError, UnicodeDecodeError, pa.ArrowException, LookupError) as error:
        if is_shortage(error):
            raise
        return None
    return file if file.is_as_named else None
