"""What a run has to do: the source's listing held against what the store already has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import DuplicateIdError
from embedpipe.sources import Listing, root_exists, same_root
from embedpipe.store import FeatureStore
from embedpipe.store.schema import storable

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """Row numbers of a listing by what must happen to them.

    Parameters
    ----------
    read : int64 array
        Items that are new, or may have changed: their bytes must be read.
    update : int64 array
        Items with unchanged bytes whose label, split, place or metadata changed.
    unchanged : int
        How many items need nothing.
    gone : list of str
        Ids of this root that the store has and the listing has not.
    rows_of_root : int
        How many rows of this root the store has.
    """

    read: Rows
    update: Rows
    unchanged: int
    gone: list[str]
    rows_of_root: int


def make_plan(listing: Listing, store: FeatureStore, checksum: bool) -> Plan:
    """Decide what to do with each item, by size and time first, without reading any payload.

    Raises
    ------
    DuplicateIdError
        If an id is in the store already from another root that still exists.
    """
    stored = store.table.read(store.data_columns)
    place = pc.index_in(listing.table.column("id"), value_set=stored.column("id"))
    new = np.asarray(place.is_null())
    known = np.flatnonzero(~new)
    ours = listing.table.take(pa.array(known))
    theirs = stored.take(pa.array(np.asarray(place.drop_null())))
    _check_roots(ours, theirs, listing.root, store.path)

    fresh = np.zeros(len(known), bool)
    if not checksum:
        same = pc.and_(
            pc.equal(ours.column("source_size"), theirs.column("source_size")),
            pc.equal(ours.column("source_modified"), theirs.column("source_modified")),
        )
        fresh = np.asarray(pc.fill_null(same, False))
    changed = _metadata_changed(ours, theirs, listing.root)

    mine = stored.filter(pc.equal(stored.column("source_root"), listing.root))
    listed = pc.is_in(mine.column("id"), value_set=listing.table.column("id"))
    unlisted = {failure.id for failure in listing.failures}
    gone = [id for id in mine.column("id").filter(pc.invert(listed)).to_pylist() if id not in unlisted]
    return Plan(
        read=np.concatenate([np.flatnonzero(new), known[~fresh]]).astype(np.int64),
        update=known[fresh & changed].astype(np.int64),
        unchanged=int((fresh & ~changed).sum()),
        gone=gone,
        rows_of_root=mine.num_rows,
    )


def _check_roots(ours: pa.Table, theirs: pa.Table, root: str, path: str) -> None:
    """Refuse ids that belong to another root, unless that root is gone: then the source has moved."""
    foreign = theirs.filter(pc.not_equal(theirs.column("source_root"), root))
    for other in pc.unique(foreign.column("source_root")).to_pylist():
        if root_exists(other) and not same_root(other, root):
            ids = foreign.filter(pc.equal(foreign.column("source_root"), other)).column("id")
            raise DuplicateIdError(
                f"{len(ids)} ids of {root!r}, such as {ids[0].as_py()!r}, are in {path!r} already from {other!r}: "
                "give this source a prefix of its own (--prefix), or a store of its own"
            )


def _metadata_changed(ours: pa.Table, theirs: pa.Table, root: str) -> npt.NDArray[np.bool_]:
    """Mark rows whose source now says something else than the store; a source's null says nothing."""
    changed = np.asarray(pc.not_equal(theirs.column("source_root"), root)).copy()
    ours = storable(ours)
    for name in ours.column_names:
        mine = ours.column(name)
        said = np.asarray(pc.is_valid(mine))
        if name not in theirs.column_names:
            changed |= said
            continue
        other = theirs.column(name)
        if mine.type != other.type:
            mine, other = mine.cast(pa.string()), other.cast(pa.string())
        equal = np.asarray(pc.fill_null(pc.equal(mine, other), False))
        if pa.types.is_floating(mine.type):
            equal |= np.asarray(pc.fill_null(pc.and_(pc.is_nan(mine), pc.is_nan(other)), False))
        changed |= said & ~equal
    return changed
