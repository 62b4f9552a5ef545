"""The failures table beside the features: failed items with stage, exception and message."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from embedpipe.errors import Failure
from embedpipe.sources.locations import printable
from embedpipe.store.keyed_table import KeyedTable

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("source_root", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("exception", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("when", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


class FailuresTable:
    """The table of failed items, with one row per id. It is created when the first item fails."""

    def __init__(self, store_path: str) -> None:
        # Readers and vacuum of Delta ignore folders that begin with an underscore.
        self.path = f"{store_path}/_failures"

    def open(self) -> KeyedTable | None:
        """Return the table, None if nothing has failed yet."""
        return KeyedTable(self.path) if KeyedTable.exists(self.path) else None

    def read(self) -> pa.Table:
        """Return all failures in id order, with the columns of `SCHEMA`."""
        table = self.open()
        return table.read() if table else SCHEMA.empty_table()

    def record(self, failures: Sequence[Failure], root: str) -> None:
        """Add failures of one root, and replace earlier ones with the same ids."""
        if not failures:
            return
        rows = {
            f.id: {
                "uri": f.uri and printable(f.uri),
                "stage": f.stage,
                "exception": f.exception,
                "message": printable(f.message),  # of any library, about a file with any name
            }
            for f in failures
        }
        now = datetime.now(UTC)
        table = self.open() or KeyedTable.create(self.path, SCHEMA)
        table.upsert(
            pa.Table.from_pylist(
                [{"id": id, "source_root": root, "when": now, **row} for id, row in rows.items()],
                schema=SCHEMA,
            )
        )

    def drop(self, ids: pa.Array) -> None:
        """Drop the failures of these ids."""
        if len(ids) and (table := self.open()):
            table.delete(ids)
