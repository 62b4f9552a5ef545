"""The rows that a store takes: values of the source, content hash, vectors, and what was set by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.embedding.plan import content_columns
from embedpipe.embedding.writing.messages import Embedded, Reused
from embedpipe.sources.reading import take_near
from embedpipe.store import FeatureStore
from embedpipe.store.editing.labelling import Outcome, forget_by_hand, keep_by_hand
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.schema import KEY_FIELDS, PERCEPTUAL_HASH, PICTURE_COUNTS, vector_column

#: Columns that are never copied from another row.
KEY_COLUMNS = {field.name for field in KEY_FIELDS}


class RowAssembler:
    """Makes the rows of a store from messages about rows of a listing.

    Parameters
    ----------
    values : pyarrow.Table
        The columns of the listing in the types of the store (`EmbedPlan.values`).
    root : str
        The root of the listing.
    store : FeatureStore
    excerpts : bool
        Whether the store keeps the beginning of each text.
    """

    def __init__(self, values: pa.Table, root: str, store: FeatureStore, excerpts: bool) -> None:
        self._values, self._root, self._store, self._excerpts = values, root, store, excerpts
        self._of_content = {*store.dims, *content_columns(store)}

    def embedded(self, messages: Sequence[Embedded]) -> pa.Table:
        """Return the rows with new vectors. They hold what the source says, and nothing that was set by hand."""
        rows = self.of_source([row for m in messages for row in m.rows], [h for m in messages for h in m.hashes])
        if self._excerpts and messages[0].texts[0] is not None:
            rows = rows.append_column("text", pa.array([text for m in messages for text in m.texts], pa.string()))
        if self._store.spec.modality == "image":
            counts = [json.dumps(counts) if counts else None for m in messages for counts in m.counts]
            if any(counts) or PICTURE_COUNTS in self._store.schema.names:
                rows = rows.append_column(PICTURE_COUNTS, pa.array(counts, pa.string()))
        hashes = [each for m in messages for each in m.perceptual_hashes]
        if any(hashes):
            rows = rows.append_column(PERCEPTUAL_HASH, pa.array(hashes, pa.string()))
        for column in messages[0].vectors:
            parts = [message.vectors[column] for message in messages]
            rows = rows.append_column(column, vector_column(parts[0] if len(parts) == 1 else np.concatenate(parts)))
        return rows

    def reused(
        self, messages: Sequence[Reused], planned: KeyedTable, outcome: Outcome, from_source: bool
    ) -> list[pa.Table]:
        """Return the rows that take vectors which the store had in the ``planned`` version."""
        parts = []
        current = self._store.table
        for takes, table in (("own", current), ("moved", planned), ("nothing", planned)):
            group = [message for message in messages if message.takes == takes]
            if not group:
                continue
            rows = self.of_source([m.row for m in group], [m.hash for m in group])
            from_ids = pa.array([m.from_id for m in group])
            late = {"own": rows.column("id"), "moved": from_ids, "nothing": pa.nulls(len(group), pa.string())}[takes]
            rows = self.keep(rows, late, table, outcome, from_source)
            names = [name for name in planned.schema.names if name in self._of_content]
            stored = planned.rows(pc.unique(from_ids), ["id", *names])
            place = pc.index_in(from_ids, value_set=stored.column("id").combine_chunks())
            for name in names:
                rows = rows.append_column(planned.schema.field(name), stored.column(name).take(place))
            parts.append(rows)
        if left := [message.from_id for message in messages if message.leaves]:
            parts.append(forget_by_hand(current.rows(pa.array(left))))
        return parts

    def keep(
        self, rows: pa.Table, ids: pa.Array | pa.ChunkedArray, table: KeyedTable, outcome: Outcome, from_source: bool
    ) -> pa.Table:
        """Keep what was set by hand, and columns that the source lacks, from the stored rows of these ids."""
        names = self._kept_columns(table.schema)
        stored = table.rows(pc.drop_null(pc.unique(ids)), ["id", *names])
        if stored.num_rows == 0:
            return rows
        place = pc.index_in(ids, value_set=stored.column("id").combine_chunks())
        own = np.asarray(pc.fill_null(pc.equal(ids, rows.column("id")), False))
        return keep_by_hand(rows, stored.select(names).take(place), own, outcome, from_source)

    def keep_own(self, rows: pa.Table, stored: pa.Table, outcome: Outcome, from_source: bool) -> pa.Table:
        """Keep the same from stored rows, which have the ids of the rows in the same order."""
        kept = stored.select(self._kept_columns(stored.schema))
        return keep_by_hand(rows, kept, np.ones(len(rows), bool), outcome, from_source)

    def _kept_columns(self, schema: pa.Schema) -> list[str]:
        skipped = KEY_COLUMNS | self._of_content
        return [name for name in schema.names if name not in skipped]

    def of_source(self, rows: list[int], hashes: list[str]) -> pa.Table:
        """Return rows of the listing with these content hashes, without vectors."""
        table = take_near(self._values, np.array(rows, np.int64))
        table = table.append_column("content_hash", pa.array(hashes, pa.string()))
        return table.append_column("source_root", pa.array([self._root] * len(rows), pa.string()))
