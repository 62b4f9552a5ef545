"""The plan of a run: the listing of the source compared with the rows of the store."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.decoding import decode_pixels, payload_hash
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import DuplicateIdError, Failure, ReadError
from embedpipe.sources import is_position, root_exists, same_root
from embedpipe.sources.boxes import FRAGMENT
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import RowNumbers, take_near
from embedpipe.store import FeatureStore
from embedpipe.store.editing.labelling import as_text, read_marks
from embedpipe.store.id_index import IdIndex, are_among
from embedpipe.store.schema import BY_HAND, PERCEPTUAL_HASH, PICTURE_COUNTS, conform, differ, storable

#: Rows of the store per part of the comparison.
PART_ROWS = 1 << 16

#: Most broken items that are tried before the network is loaded, one after the other.
MOST_BROKEN = 256

#: End of the id of a page or frame, after that of its file.
_PART = r"#(page|t)=[0-9.]+$"

#: Columns kept of rows of the root that the listing lacks.
UNLISTED = pa.schema([("id", pa.string()), ("uri", pa.string())])


@dataclass(frozen=True)
class EmbedPlan:
    """Row numbers of a listing, by the work that they need.

    Parameters
    ----------
    read : int64 array
        Items that are new or may have changed, so their bytes must be read; first those whose id the store lacks.
    new : int
        Number of these.
    update : int64 array
        Items with unchanged bytes whose label, split, uri or metadata changed.
    unchanged : int
        Number of items that need nothing.
    gone : list of str
        Stored ids of this root whose item is no longer in the listing.
    rows_of_root : int
        Number of stored rows of this root.
    moved_from : str, optional
        The earlier root of these items, if the whole source has moved.
    conflicts : Counter
        Number of values by column that were set by hand although the source has another, of the unchanged items.
    index : IdIndex
        Finds the rows of ids.
    values : pyarrow.Table
        The columns of the listing in the types of the store (`source_values`).
    """

    read: RowNumbers
    new: int
    update: RowNumbers
    unchanged: int
    gone: list[str]
    rows_of_root: int
    moved_from: str | None
    conflicts: Counter[str]
    index: IdIndex
    values: pa.Table


def make_plan(
    listing: Listing, store: FeatureStore, checksum: bool = False, labels_from_source: bool = False
) -> EmbedPlan:
    """Decide what to do with each item by size and time, mostly without reading payloads.

    The store is read a few files at a time in id order, so that memory is bounded by the listing.

    Parameters
    ----------
    listing : Listing
    store : FeatureStore
    checksum : bool
        Read every item, even if size and time are unchanged.
    labels_from_source : bool
        Take the values of the source in place of those that were set by hand.

    Raises
    ------
    DuplicateIdError
        An id is stored from another root, and the source has not moved from there.
    """
    known, same_payload, changed = (np.zeros(len(listing), bool) for _ in range(3))
    other_roots: dict[str, list[RowNumbers]] = {}
    unlisted_parts: list[pa.Table] = []
    conflicts: Counter[str] = Counter()
    values = source_values(listing.table, store)
    rows_of_root = 0
    index = IdIndex(listing.table.column("id"))
    names = [name for name in store.data_columns if name not in content_columns(store) | {"content_hash"}]
    for stored in stored_parts(store, names):
        of_root = pc.equal(stored.column("source_root"), listing.root)
        rows_of_root += pc.sum(of_root).as_py() or 0
        rows = index.find(stored.column("id"))
        unlisted_parts.append(stored.filter(pc.and_(of_root, pa.array(rows < 0))).select(["id", "uri"]))
        stored, rows = stored.filter(pa.array(rows >= 0)), rows[rows >= 0]
        listed = take_near(listing.table, rows)
        known[rows] = True
        for root, mask in _other_roots(listed, stored, listing.root):
            other_roots.setdefault(root, []).append(rows[mask])
        _check_positions(listing, rows, listed, store)
        same_payload[rows] = not checksum and _is_fresh(listed, stored)
        listed = take_near(values, rows)
        changed[rows], differing = _metadata_changed(listed, stored, listing.root, labels_from_source)
        stay = same_payload[rows] & ~changed[rows]
        conflicts.update({name: int((mask & stay).sum()) for name, mask in differing.items()})
    moved_from = _check_roots(listing, {root: np.concatenate(rows) for root, rows in other_roots.items()}, store)
    unlisted = pa.concat_tables(unlisted_parts) if unlisted_parts else UNLISTED.empty_table()
    return EmbedPlan(
        read=np.concatenate([np.flatnonzero(~known), np.flatnonzero(known & ~same_payload)]).astype(np.int64),
        new=int((~known).sum()),
        update=np.flatnonzero(same_payload & changed).astype(np.int64),
        unchanged=int((same_payload & ~changed).sum()),
        gone=unlisted.column("id").filter(gone_from(listing, unlisted)).to_pylist() if len(unlisted) else [],
        rows_of_root=rows_of_root,
        moved_from=moved_from,
        conflicts=conflicts,
        index=index,
        values=values,
    )


def still_broken(listing: Listing, rows: RowNumbers, known: pa.ChunkedArray, recipe: object) -> list[Failure] | None:
    """Return why each row fails again, if all of them failed before and still do; None as soon as one may be embedded.

    This needs no network: a run with nothing new but old broken items does not load one.

    Parameters
    ----------
    listing : Listing
    rows : int64 array
        The rows to read.
    known : pyarrow.ChunkedArray of str
        The ids that failed before.
    recipe : Preprocessing
        That of the backbone; of texts, which nearly never fail, None is returned.
    """
    if len(rows) > MOST_BROKEN or not isinstance(recipe, Preprocessing):
        return None
    if not pc.all(pc.is_in(listing.table.column("id").take(pa.array(rows)), value_set=known.combine_chunks())).as_py():
        return None
    failures = []
    for row in rows.tolist():
        stage = "read"
        try:
            payload = listing.read(row)
            stage = "decode"
            decode_pixels(payload, recipe)
        except Exception as error:  # as when they are embedded
            failures.append(listing.failure(row, error, stage))
        else:
            return None
    return failures


def stored_parts(store: FeatureStore, names: list[str]) -> Iterator[pa.Table]:
    """Yield columns of a store, about `PART_ROWS` rows at a time."""
    waiting: list[pa.Table] = []
    for file in store.table.files:
        waiting.append(store.table.read_file(file, names))
        if sum(map(len, waiting)) >= PART_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
            pa.default_memory_pool().release_unused()  # otherwise Arrow keeps memory of every part
    if waiting:
        yield pa.concat_tables(waiting)


def _is_fresh(listed: pa.Table, stored: pa.Table) -> npt.NDArray[np.bool_]:
    """Return the mask of rows whose size and time are those of the embedded payload."""
    sizes, stored_sizes = listed.column("source_size"), stored.column("source_size")
    # A cell of a Parquet file has the time of the file, and no size that is known without reading it.
    size = pc.or_(
        pc.fill_null(pc.equal(sizes, stored_sizes), False), pc.and_(pc.is_null(sizes), pc.is_null(stored_sizes))
    )
    same = pc.and_(size, pc.equal(listed.column("source_modified"), stored.column("source_modified")))
    # All cells of a table and all parts of a picture have its time, so one with another uri is another item.
    moved = pc.fill_null(pc.not_equal(listed.column("uri"), stored.column("uri")), True)
    cell = np.asarray(pc.and_(_is_cell(listed.column("uri")), moved))
    unchanged: npt.NDArray[np.bool_] = np.asarray(pc.fill_null(same, False)) & ~cell
    return unchanged


def gone_from(listing: Listing, rows: pa.Table) -> pa.ChunkedArray:
    """Return the mask of rows (``id``, ``uri``) whose item is gone: the listing has neither the id nor the uri.

    The uri of a cell is only its row number, which another item takes when rows are removed; two items may have one
    box. Pages and frames of a file that cannot be listed, as it is being written, are not gone.
    """
    unlistable = pa.array([failure.id for failure in listing.failures], pa.string())
    listed = are_among(rows.column("id"), listing.table.column("id"))
    for ids in (rows.column("id"), pc.replace_substring_regex(rows.column("id"), _PART, "")):
        listed = pc.or_(listed, pc.is_in(ids, value_set=unlistable))
    same_uri = are_among(rows.column("uri"), listing.table.column("uri"))
    return pc.invert(pc.or_(listed, pc.and_(same_uri, pc.invert(_is_cell(rows.column("uri"))))))


def _is_cell(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the mask of the uris that are cells of tables, or parts of pictures: several items may have one."""
    cells = pc.or_(pc.starts_with(uris, "table://"), pc.starts_with(uris, "parquet://"))
    return pc.fill_null(pc.or_(cells, pc.match_substring(uris, FRAGMENT)), False)


def _other_roots(listed: pa.Table, stored: pa.Table, root: str) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield each other root that has these ids with another uri, and the mask of its rows."""
    # The same uri is the same item: lists and sets of shards grow and are renamed.
    moved = pc.fill_null(pc.not_equal(stored.column("uri"), listed.column("uri")), True)
    foreign = pc.and_(pc.not_equal(stored.column("source_root"), root), moved)
    for other in pc.unique(stored.column("source_root").filter(foreign)).to_pylist():
        yield other, np.asarray(pc.and_(foreign, pc.equal(stored.column("source_root"), other)))


def _check_roots(listing: Listing, other_roots: Mapping[str, RowNumbers], store: FeatureStore) -> str | None:
    """Raise DuplicateIdError for ids of another root, unless it is this source before a move; return that root.

    A missing root may be an unplugged disk, so the content decides whether the source has moved.
    """
    moved_from = None
    for other, rows in other_roots.items():
        if same_root(other, listing.root):
            continue
        exists = root_exists(other)
        if exists or not _same_content(listing, rows[:: max(1, len(rows) // 20)], store):
            why = "" if exists else ", which no longer exists, and their content differs"
            raise DuplicateIdError(
                f"{len(rows)} ids of {listing.root!r}, such as {_id(listing, rows[0])!r}, are already in "
                f"{store.path!r} from {other!r}{why}: "
                f"give this source a {option('prefix')}, or embed it into another store"
            )
        moved_from = other
    return moved_from


def _check_positions(listing: Listing, rows: RowNumbers, listed: pa.Table, store: FeatureStore) -> None:
    """Raise DuplicateIdError for items whose id is only a position, if the stored content differs."""
    at = rows[np.asarray(pc.is_null(listed.column("uri")))]
    at = at[[is_position(_id(listing, row)) for row in at]]
    hashes = _hashes(listing, at, store) if len(at) else {}
    for row in at:
        id = _id(listing, row)
        if payload_hash(listing.read(int(row))) != hashes[id]:
            raise DuplicateIdError(
                f"the id of item {id!r} is its position, and {id!r} in {store.path!r} has other content: "
                "give this list a prefix, or its items ids (a table with an id column)"
            )


def _same_content(listing: Listing, rows: RowNumbers, store: FeatureStore) -> bool:
    """Return whether most of these rows that can be read have the stored content."""
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
    rows_found = store.table.rows(ids, ["id", "content_hash"])
    return dict(zip(rows_found["id"].to_pylist(), rows_found["content_hash"].to_pylist(), strict=True))


def content_columns(store: FeatureStore) -> set[str]:
    """Return the columns that embedpipe writes from the content of an item: the beginning of a text, say."""
    if store.spec.is_imported:
        return set()
    return {"text"} if store.spec.modality == "text" else {PICTURE_COUNTS, PERCEPTUAL_HASH}


def source_values(listed: pa.Table, store: FeatureStore) -> pa.Table:
    """Return the columns of a listing in the types of the store, without columns of nulls only.

    A label that is set later can then have any type. Raises StoreError before anything is embedded.
    """
    table = storable(listed)
    empty = [name for name in table.column_names if name != "id" and table.column(name).null_count == table.num_rows]
    table = table.drop_columns(empty)
    fields = [store.schema.field(f.name) if f.name in store.schema.names else f for f in table.schema]
    return conform(table, pa.schema(fields))


def _metadata_changed(
    values: pa.Table, stored: pa.Table, root: str, from_source: bool
) -> tuple[npt.NDArray[np.bool_], dict[str, npt.NDArray[np.bool_]]]:
    """Return the mask of rows whose metadata differs from the store, and by column that of the conflicts.

    Where a value was set by hand, what the source says now is compared with what it said before. It is a conflict if
    the source has another value.
    """
    changed = np.asarray(pc.not_equal(stored.column("source_root"), root)).copy()
    marks = read_marks(stored.column(BY_HAND)) if BY_HAND in stored.column_names else {}
    differing: dict[str, npt.NDArray[np.bool_]] = {}
    for name in values.column_names:
        new = values.column(name)
        has_value = np.asarray(new.is_valid())
        if name not in stored.column_names:
            changed |= has_value
            continue
        old = stored.column(name)
        differs = np.asarray(differ(new, old))
        if name in marks:
            by_hand, source = marks[name]
            differing[name] = by_hand & has_value & differs
            said_before = np.asarray(differ(as_text(new.combine_chunks()), source))
            differs = np.where(by_hand, has_value if from_source else said_before, differs)
        changed |= differs
    return changed, differing
