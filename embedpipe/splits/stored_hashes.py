"""The perceptual hashes of the rows of a store."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.store import FeatureStore
from embedpipe.store.schema import PERCEPTUAL_HASH


def stored_hashes(store: FeatureStore, ids: pa.Array) -> PerceptualHashes | None:
    """Return the hashes of the rows with these ids, in this order; None if the store has none."""
    if PERCEPTUAL_HASH not in store.columns:
        return None
    rows = store.table.rows(ids, ["id", PERCEPTUAL_HASH])
    place = pc.index_in(ids, value_set=rows["id"].combine_chunks())
    return PerceptualHashes.read(rows[PERCEPTUAL_HASH].take(place).to_pylist())
