"""Tables that are too large to keep in memory while they are made: they go to a file without a name, and are mapped."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from typing import IO

import pyarrow as pa

from embedpipe._utils.cache import open_cache

#: Bytes of tables in memory from which they are written.
KEPT_BYTES = 16 << 20

#: Tables begin at multiples of this in the file, as Arrow wants them in memory.
ALIGNMENT = 64


class Spool:
    """Takes tables, and gives them back from a memory map, whose memory the system can take back.

    The file lies in the cache folder, and ends with the process, as it has no name. What cannot be written, as on a
    full disk, stays in memory.
    """

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._bytes, self._most = 0, KEPT_BYTES
        self._file: IO[bytes] | None = None
        self._places: list[tuple[int, int]] = []

    def add(self, table: pa.Table) -> None:
        """Take a table."""
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes > self._most:
            try:
                self._write()
            except OSError:
                self._most = 1 << 62

    def finish(self) -> list[pa.Table]:
        """Return the tables in the order in which they were taken."""
        tables: list[pa.Table] = []
        if self._file is not None and self._places:
            data = pa.py_buffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
            tables = [pa.ipc.open_stream(data.slice(start, size)).read_all() for start, size in self._places]
        if self._file is not None:
            self._file.close()
        return [*tables, *self._tables]

    def _write(self) -> None:
        """Move the tables in memory to the file."""
        if self._file is None:
            if (folder := open_cache("listings")) is None:
                raise OSError
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  `finish` closes it
        while self._tables:
            table = self._tables[0]
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            size = sink.tell()
            sink.write(bytes(-size % ALIGNMENT))
            start, data = self._file.tell(), memoryview(sink.getvalue())
            while data:
                data = data[self._file.write(data) :]
            self._places.append((start, size))
            self._bytes -= table.nbytes
            del self._tables[0]


def spooled(chunks: Iterable[pa.Array], type: pa.DataType) -> pa.ChunkedArray:
    """Return the column of these chunks, on disk if it is long."""
    spool = Spool()
    for chunk in chunks:
        spool.add(pa.table([chunk], ["column"]))
    return pa.chunked_array([part for table in spool.finish() for part in table.column(0).chunks], type)
