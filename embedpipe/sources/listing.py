"""What every source gives: a columnar listing of its items, and a way to read one of them.

A listing is an Arrow table, so a million items cost about 150 bytes each and no Python objects;
payloads are read one at a time, when the embedding loop asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from embedpipe.errors import Failure

#: Columns that every listing has, in this order; metadata columns follow. ``label`` may have any scalar type.
#: ``source_size`` is in bytes and ``source_modified`` in nanoseconds since the epoch; null where unknown.
COLUMNS = ("id", "uri", "source_size", "source_modified", "label", "split")


@dataclass(frozen=True)
class Listing:
    """The items of a source, in a fixed order.

    Parameters
    ----------
    table : pyarrow.Table
        The columns of `COLUMNS`, then metadata. ``id`` is unique and not null.
    root : str
        Which source this is, always the same for the same folder, table or shards: pruning and
        collisions are decided per root.
    read : callable
        ``read(row)`` returns the payload of that row: encoded bytes, or an object for in-memory sources.
        Safe to call from several threads. Raises ReadError.
    failures : tuple of Failure
        Items that could not even be listed (an unreadable folder, a torn archive, a row without an id).
    skipped : dict
        How many files were left out because they are not images by name, by suffix; said to the user.
    """

    table: pa.Table
    root: str
    read: Callable[[int], Any]
    failures: tuple[Failure, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.table.num_rows)
