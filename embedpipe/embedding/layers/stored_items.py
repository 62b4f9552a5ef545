"""The items of a store as a source: each is read again from where the store says that it is."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import UsageError
from embedpipe.sources.listing import Listing, constant
from embedpipe.sources.opening import read_uri
from embedpipe.sources.options import Modality
from embedpipe.sources.reading import Reader, RowNumbers, take_near
from embedpipe.store import FeatureStore

#: The row and the file of the uri of a cell.
_CELL = r"^(?:parquet|table)://.*/(?P<row>[0-9]{1,18})::(?P<file>.+)$"


class StoredItems:
    """Reads items by their uris, which may name what a store may name; see `access_of_store`."""

    def __init__(self, uris: pa.ChunkedArray, modality: Modality) -> None:
        self._uris, self._modality = uris, modality

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        return read_uri(self._uris[row].as_py(), self._modality)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows."""
        return StoredItems(take_near(self._uris, rows), self._modality)


def list_stored(store: FeatureStore) -> Listing:
    """Return the listing of the items of a store, with the size and time that it recorded for each.

    Raises UsageError if items were embedded from memory, so that nothing says where they are.
    """
    rows = store.table.read(["id", "uri", "source_root", "source_size", "source_modified"])
    if lost := rows.column("uri").null_count:
        example = rows.filter(pc.is_null(rows.column("uri"))).column("id")[0].as_py()
        raise UsageError(
            f"items must have a uri to be read again, and {lost:,} of the {rows.num_rows:,} of {store.path!r}, such as "
            f"{example!r}, were embedded from memory: embed them into a new store with all layers"
        )
    rows = _near_cells_together(rows)
    root = rows.column("source_root")[0].as_py() if rows.num_rows else store.path
    table = rows.select(["id", "uri", "source_size", "source_modified"])
    for name in ("label", "split"):
        table = table.append_column(name, constant(None, rows.num_rows, pa.string()))
    return Listing(table, root, StoredItems(table.column("uri"), store.spec.modality), excerpts="text" in store.columns)


def _near_cells_together(rows: pa.Table) -> pa.Table:
    """Order the cells of tables by file and row, as a row group of Parquet is read as a whole."""
    cells = pc.extract_regex(rows.column("uri"), _CELL).combine_chunks()
    if cells.null_count == len(cells):
        return rows
    keys = pa.table({"file": pc.struct_field(cells, "file"), "row": pc.struct_field(cells, "row").cast(pa.int64())})
    return rows.take(pc.sort_indices(keys, [("file", "ascending"), ("row", "ascending")]))
