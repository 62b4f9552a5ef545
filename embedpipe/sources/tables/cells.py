"""Payloads in the cells of tables: images or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from embedpipe.errors import ReadError
from embedpipe.sources.access.roots import Access, read_allowed
from embedpipe.sources.locations import join, modified, split_location
from embedpipe.sources.options import Modality
from embedpipe.sources.reading import Reader, RowNumbers, Selected, take_near
from embedpipe.sources.tables.table_files import load_table


def payload_of(cell: Any, folder: str, modality: Modality, access: Access) -> Any:
    """Return the payload of a cell.

    A text is the string or bytes in the cell. An image is the bytes in the cell, the file at a path relative to
    ``folder``, or a struct of either as in Hugging Face data sets.

    Raises ReadError if the cell is null, a text is empty, or the file of an image cannot or must not be read.
    """
    if modality == "text":
        if not cell:
            raise ReadError("the row has no text: the cell is empty")
        return cell
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None:
        raise ReadError("the row has no image: the cell is null")
    return read_allowed(join(folder, cell), access) if isinstance(cell, str) else bytes(cell)


class Cells:
    """Reads the cells of a column in memory."""

    def __init__(self, cells: pa.ChunkedArray | Sequence[Any], folder: str, modality: Modality, access: Access) -> None:
        self._cells, self._folder, self._modality, self._access = cells, folder, modality, access

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        return payload_of(self._value(row), self._folder, self._modality, self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        fast = isinstance(self._cells, pa.ChunkedArray) and self._cells.type == pa.string()
        # Views and runs have no `take`, and a dictionary would be pickled whole.
        values = take_near(self._cells, rows).to_pylist() if fast else [self._value(row) for row in rows.tolist()]
        return Cells(values, self._folder, self._modality, self._access)

    def _value(self, row: int) -> Any:
        cell = self._cells[row]
        return cell.as_py() if isinstance(cell, pa.Scalar) else cell


class ArrowCells:
    """Reads the images in a column of an Arrow file, which is mapped into memory when the first is read.

    ``listed`` is the modification time of the file at the time of the listing. A changed file is refused.
    """

    def __init__(self, location: str, column: str, listed: int | None, access: Access) -> None:
        self._location, self._name, self._listed, self._access = location, column, listed, access
        self._column: pa.ChunkedArray | None = None

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        if self._column is None:
            column = load_table(self._location, [self._name]).table.column(self._name)
            if modified(self._location) != self._listed:
                raise ReadError(f"{self._location} has changed since its rows were listed: run again")
            self._column = column
        return payload_of(self._column[row].as_py(), split_location(self._location)[0], "image", self._access)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return Selected(self, rows)

    def __reduce__(self) -> Any:
        return ArrowCells, (self._location, self._name, self._listed, self._access)
