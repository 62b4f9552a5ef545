"""Adding vector columns to a store: every file is written anew, and one commit replaces them all.

Data files of Delta never change. A reader sees the version before or the version after, never rows without a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
from deltalake.transaction import AddAction

from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import ConcurrentWriteError
from embedpipe.store.data_files import removal
from embedpipe.store.feature_store import FeatureStore
from embedpipe.store.keyed_table import CommitPlan
from embedpipe.store.schema import conform, refuse_missing_vectors, spec_of, vector_fields


def extend(
    store: FeatureStore,
    spec: BackboneSpec,
    extended: Callable[[pa.Table], pa.Table],
    note: Mapping[str, Any],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Give a store the vector columns of ``spec``, which has its layers and more, in one commit.

    Memory is bounded by a file. Space is not: the old files stay until `FeatureStore.vacuum`.

    Parameters
    ----------
    store : FeatureStore
        It is refreshed.
    spec : BackboneSpec
        The spec of the store afterwards.
    extended : callable
        ``extended(rows)`` returns the rows of a file with all vector columns of ``spec``. It may leave rows out.
    note : mapping
        Metadata of the commit.
    check : callable
        Called for each version that is tried, before anything is written.

    Raises
    ------
    ConcurrentWriteError
        Another process has changed the layers of the store since it was opened.
    """
    before, table = store.spec, store.table

    def columns() -> pa.Schema:
        kept = (field for field in table.schema if field.name not in {layer.column for layer in before.layers})
        return pa.schema([*kept, *vector_fields(spec, store.compressed)])

    def plan() -> CommitPlan[None]:
        if spec_of(table.schema) != before or spec.layers[: len(before.layers)] != before.layers:
            raise ConcurrentWriteError(f"another process has changed the layers of {store.path!r}: run it again")
        check()
        adds: list[AddAction] = []
        for file in table.files:
            rows = extended(table.read_file(file))
            refuse_missing_vectors(rows, columns(), store.path)
            adds += table.write(conform(rows, columns()))
            pa.default_memory_pool().release_unused()  # otherwise Arrow keeps memory of every file
        return adds, [removal(file) for file in table.files], None

    table.commit(plan, note, columns)
    store.refresh()
