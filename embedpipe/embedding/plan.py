"""What a run has to do: the source's listing held against what the store already has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.decoding import payload_hash
from embedpipe.errors import DuplicateIdError, ReadError
from embedpipe.sources import is_position, root_exists, same_root
from embedpipe.sources.listing import Listing
from embedpipe.store import FeatureStore
from embedpipe.store.id_index import IdIndex
from embedpipe.store.schema import storable

RowNumbers = npt.NDArray[np.int64]

#: RowNumbers of the store that are looked at together.
PART_ROWS = 1 << 16

#: What is kept of rows of the root that the listing does not have.
LEFT = pa.schema([("id", pa.string()), ("uri", pa.string())])


@dataclass(frozen=True)
class EmbedPlan:
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

    read: RowNumbers
    update: RowNumbers
    unchanged: int
    gone: list[str]
    rows_of_root: int
    moved_from: str | None


def make_plan(listing: Listing, store: FeatureStore, checksum: bool) -> EmbedPlan:
    """Decide what to do with each item, by size and time first, without reading any payload.

    The store is read a few files at a time, in the order of their ids, so that memory is that of the listing.

    Parameters
    ----------
    listing : Listing
    store : FeatureStore
    checksum : bool
        Read every item, even where size and time are unchanged.

    Raises
    ------
    DuplicateIdError
        If an id is in the store already from another root, and it is not that one moved here.
    """
    known, fresh, changed = (np.zeros(len(listing), bool) for _ in range(3))
    elsewhere: dict[str, list[RowNumbers]] = {}
    left: list[pa.Table] = []
    rows_of_root = 0
    index = IdIndex(listing.table.column("id"))
    for stored in _stored(store):
        of_root = pc.equal(stored.column("source_root"), listing.root)
        rows_of_root += pc.sum(of_root).as_py() or 0
        rows = index.find(stored.column("id").combine_chunks())
        left.append(stored.filter(pc.and_(of_root, pa.array(rows < 0))).select(["id", "uri"]))
        theirs, rows = stored.filter(pa.array(rows >= 0)), rows[rows >= 0]
        ours = take_near(listing.table, rows)
        known[rows] = True
        for root, mask in _other_roots(ours, theirs, listing.root):
            elsewhere.setdefault(root, []).append(rows[mask])
        _check_positions(listing, rows, ours, store)
        fresh[rows] = not checksum and _is_fresh(ours, theirs)
        changed[rows] = _metadata_changed(ours, theirs, listing.root)
    moved_from = _check_roots(listing, {root: np.concatenate(rows) for root, rows in elsewhere.items()}, store)
    unlisted = pa.concat_tables(left) if left else LEFT.empty_table()
    return EmbedPlan(
        read=np.concatenate([np.flatnonzero(~known), np.flatnonzero(known & ~fresh)]).astype(np.int64),
        update=np.flatnonzero(fresh & changed).astype(np.int64),
        unchanged=int((fresh & ~changed).sum()),
        gone=unlisted.column("id").filter(gone_from(listing, unlisted)).to_pylist() if len(unlisted) else [],
        rows_of_root=rows_of_root,
        moved_from=moved_from,
    )


def take_near(table: pa.Table, rows: RowNumbers) -> pa.Table:
    """Take rows that are near each other: only what lies between them is looked at, not the whole table."""
    if not len(rows):
        return table.slice(0, 0)
    first, last = int(rows.min()), int(rows.max())
    return table.slice(first, last - first + 1).take(pa.array(rows - first))


def _stored(store: FeatureStore) -> Iterator[pa.Table]:
    """Yield what the plan needs of the store's rows, about `PART_ROWS` at a time."""
    excerpts = {"text"} if store.spec.modality == "text" else set()  # not the source's to say
    names = [name for name in store.data_columns if name not in excerpts | {"content_hash"}]
    waiting: list[pa.Table] = []
    for file in sorted(store.table.files, key=lambda file: file.first):
        waiting.append(store.table.read_file(file, names))
        if sum(map(len, waiting)) >= PART_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
            pa.default_memory_pool().release_unused()  # or Arrow keeps a part of it, and then of the next
    if waiting:
        yield pa.concat_tables(waiting)


def _is_fresh(ours: pa.Table, theirs: pa.Table) -> npt.NDArray[np.bool_]:
    """Mark rows whose payload is the one that was embedded, by its size and time."""
    sizes, stored_sizes = ours.column("source_size"), theirs.column("source_size")
    # Cells of a Parquet file have no size that is known without reading them, but the file's time.
    size = pc.or_(
        pc.fill_null(pc.equal(sizes, stored_sizes), False), pc.and_(pc.is_null(sizes), pc.is_null(stored_sizes))
    )
    same = pc.and_(size, pc.equal(ours.column("source_modified"), theirs.column("source_modified")))
    # A cell has its table's time: in another column it is another item.
    elsewhere = pc.fill_null(pc.not_equal(ours.column("uri"), theirs.column("uri")), True)
    cell = np.asarray(pc.and_(_is_cell(ours.column("uri")), elsewhere))
    unchanged: npt.NDArray[np.bool_] = np.asarray(pc.fill_null(same, False)) & ~cell
    return unchanged


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


def _other_roots(ours: pa.Table, theirs: pa.Table, root: str) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield each other root that has the ids of these rows in another place, and the mask of its rows."""
    # The same place is the same item: shards and lists grow, and get other names.
    place = pc.fill_null(pc.not_equal(theirs.column("uri"), ours.column("uri")), True)
    foreign = pc.and_(pc.not_equal(theirs.column("source_root"), root), place)
    for other in pc.unique(theirs.column("source_root").filter(foreign)).to_pylist():
        yield other, np.asarray(pc.and_(foreign, pc.equal(theirs.column("source_root"), other)))


def _check_roots(listing: Listing, elsewhere: Mapping[str, RowNumbers], store: FeatureStore) -> str | None:
    """Refuse ids that belong to another root, unless it is this one under another name or moved; return that one.

    A missing root may be an unplugged disk, so content decides whether the source has moved.
    """
    moved_from = None
    for other, rows in elsewhere.items():
        if same_root(other, listing.root):
            continue
        there = root_exists(other)
        if there or not _same_content(listing, rows[:: max(1, len(rows) // 20)], store):
            why = "" if there else ", which is not there now, and their content differs"
            raise DuplicateIdError(
                f"{len(rows)} ids of {listing.root!r}, such as {_id(listing, rows[0])!r}, are in "
                f"{store.path!r} already from {other!r}{why}: "
                "give this source a prefix of its own (--prefix), or a store of its own"
            )
        moved_from = other
    return moved_from


def _check_positions(listing: Listing, rows: RowNumbers, ours: pa.Table, store: FeatureStore) -> None:
    """Refuse items whose id is only their place in a list, where another list's item has that id."""
    at = rows[np.asarray(pc.is_null(ours.column("uri")))]
    at = at[[is_position(_id(listing, row)) for row in at]]
    hashes = _hashes(listing, at, store) if len(at) else {}
    for row in at:
        id = _id(listing, row)
        if payload_hash(listing.read(int(row))) != hashes[id]:
            raise DuplicateIdError(
                f"item {id!r}, which has no id but its position, has other content than {id!r} in {store.path!r}: "
                "give this list a prefix of its own, or its items ids (a table with an id column)"
            )


def _same_content(listing: Listing, rows: RowNumbers, store: FeatureStore) -> bool:
    """Say whether most of these rows, of those that can be read, have the content that is stored."""
    hashes = _hashes(listing, rows, store)
    same: list[bool] = []
    for row in rows:
        with contextlib.suppress(ReadError):
            same.append(payload_hash(listing.read(int(row))) == hashes[_id(listing, row)])
    return sum(same) > len(same) / 2


def _id(listing: Listing, row: Any) -> str:
    return str(listing.table.column("id")[int(row)].as_py())


def _hashes(listing: Listing, rows: RowNumbers, store: FeatureStore) -> dict[str, str]:
    """Return the stored content hash of each of these rows, by id."""
    ids = take_near(listing.table.select(["id"]), rows).column("id").combine_chunks()
    found = store.table.rows(ids, ["id", "content_hash"])
    return dict(zip(found["id"].to_pylist(), found["content_hash"].to_pylist(), strict=True))


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
