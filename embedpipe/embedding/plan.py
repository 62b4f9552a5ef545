"""What a run has to do: the source's listing held against what the store already has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.decoding import payload_hash
from embedpipe.errors import DuplicateIdError, ReadError
from embedpipe.sources import Listing, is_position, root_exists, same_root
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
        Ids of this root that the store has, and whose place the listing has no more.
    rows_of_root : int
        How many rows of this root the store has.
    moved_from : str, optional
        The root that these items had before, when the whole source has moved.
    """

    read: Rows
    update: Rows
    unchanged: int
    gone: list[str]
    rows_of_root: int
    moved_from: str | None


def make_plan(listing: Listing, stored: pa.Table, path: str, checksum: bool) -> Plan:
    """Decide what to do with each item, by size and time first, without reading any payload.

    Parameters
    ----------
    listing : Listing
    stored : pyarrow.Table
        All rows of the store at ``path``, without their vectors.
    path : str
        For messages.
    checksum : bool
        Read every item, even where size and time are unchanged.

    Raises
    ------
    DuplicateIdError
        If an id is in the store already from another root, and it is not that one moved here.
    """
    place = pc.index_in(listing.table.column("id"), value_set=stored.column("id"))
    new = np.asarray(place.is_null())
    known = np.flatnonzero(~new)
    ours = listing.table.take(pa.array(known))
    theirs = stored.take(pa.array(np.asarray(place.drop_null())))
    moved_from = _check_roots(listing, known, ours, theirs, path)

    _check_positions(listing, known, ours, theirs, path)

    fresh = np.zeros(len(known), bool)
    if not checksum:
        same = pc.and_(
            pc.equal(ours.column("source_size"), theirs.column("source_size")),
            pc.equal(ours.column("source_modified"), theirs.column("source_modified")),
        )
        # A cell has its table's time: in another column it is another item.
        elsewhere = pc.fill_null(pc.not_equal(ours.column("uri"), theirs.column("uri")), True)
        fresh = np.asarray(pc.fill_null(same, False)) & ~np.asarray(pc.and_(_is_cell(ours.column("uri")), elsewhere))
    changed = _metadata_changed(ours, theirs, listing.root)

    mine = stored.filter(pc.equal(stored.column("source_root"), listing.root))
    gone = mine.column("id").filter(gone_from(listing, mine)).to_pylist()
    return Plan(
        read=np.concatenate([np.flatnonzero(new), known[~fresh]]).astype(np.int64),
        update=known[fresh & changed].astype(np.int64),
        unchanged=int((fresh & ~changed).sum()),
        gone=gone,
        rows_of_root=mine.num_rows,
        moved_from=moved_from,
    )


def gone_from(listing: Listing, rows: pa.Table) -> pa.ChunkedArray:
    """Mark rows (``id``, ``uri``) whose item a listing has no more: neither the id nor the place is in it.

    A cell's place is only its row's number, at which another item stands when rows are taken out.
    """
    unlistable = pa.array([failure.id for failure in listing.failures], pa.string())
    there = pc.is_in(rows.column("id"), value_set=listing.table.column("id"))
    there = pc.or_(there, pc.is_in(rows.column("id"), value_set=unlistable))
    place = pc.is_in(rows.column("uri"), value_set=pc.drop_null(listing.table.column("uri")))
    return pc.invert(pc.or_(there, pc.and_(place, pc.invert(_is_cell(rows.column("uri"))))))


def _is_cell(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Mark the places that are cells of tables."""
    return pc.fill_null(pc.or_(pc.starts_with(uris, "table://"), pc.starts_with(uris, "parquet://")), False)


def _check_roots(listing: Listing, known: Rows, ours: pa.Table, theirs: pa.Table, path: str) -> str | None:
    """Refuse ids that belong to another root, unless it is this one under another name or moved; return that one.

    A missing root may be an unplugged disk, so content decides whether the source has moved.
    """
    other_root = pc.not_equal(theirs.column("source_root"), listing.root)
    # The same place is the same item: shards and lists grow, and get other names.
    elsewhere = pc.fill_null(pc.not_equal(theirs.column("uri"), ours.column("uri")), True)
    foreign = np.flatnonzero(np.asarray(pc.and_(other_root, elsewhere)))
    roots = theirs.column("source_root").take(pa.array(foreign))
    moved_from = None
    for other in pc.unique(roots).to_pylist():
        if same_root(other, listing.root):
            continue
        rows = foreign[np.asarray(pc.equal(roots, other))]
        there = root_exists(other)
        if there or not _same_content(listing, known[rows], theirs.column("content_hash").take(pa.array(rows))):
            why = "" if there else ", which is not there now, and their content differs"
            raise DuplicateIdError(
                f"{len(rows)} ids of {listing.root!r}, such as {ours.column('id')[int(rows[0])].as_py()!r}, are in "
                f"{path!r} already from {other!r}{why}: "
                "give this source a prefix of its own (--prefix), or a store of its own"
            )
        moved_from = other
    return moved_from


def _check_positions(listing: Listing, known: Rows, ours: pa.Table, theirs: pa.Table, path: str) -> None:
    """Refuse items whose id is only their place in a list, where another list's item has that id."""
    for at in np.flatnonzero(np.asarray(pc.is_null(ours.column("uri")))).tolist():
        id = ours.column("id")[at].as_py()
        if is_position(id) and payload_hash(listing.read(int(known[at]))) != theirs.column("content_hash")[at].as_py():
            raise DuplicateIdError(
                f"item {id!r}, which has no id but its position, has other content than {id!r} in {path!r}: "
                "give this list a prefix of its own, or its items ids (a table with an id column)"
            )


def _same_content(listing: Listing, rows: Rows, hashes: pa.ChunkedArray) -> bool:
    """Say whether most of a sample of rows, those that can be read, have the content that is stored."""
    same: list[bool] = []
    for at in range(0, len(rows), max(1, len(rows) // 20)):
        with contextlib.suppress(ReadError):
            same.append(payload_hash(listing.read(int(rows[at]))) == hashes[at].as_py())
    return sum(same) > len(same) / 2


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
