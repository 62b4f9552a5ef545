"""Lookup of stored items by content hash, and of the stored content of listed items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.sources.columns.spool import Spool
from embedpipe.store.id_index import IdIndex

#: Characters of a content hash: SHA-256, as hexadecimal digits.
DIGITS = 64

#: Characters by which contents are told apart: 128 bits of SHA-256.
KEPT_DIGITS = 32

#: Values of the first half of a key.
KEYS = 1 << 64

#: Entries that are sorted at a time.
SORTED_ROWS = 1 << 19

Parts = Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]]

#: First and second half of the keys as uint64, and places as int64, in the order of first half and place.
Entries = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]


NOTHING: Entries = (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))


class HashIndex:
    """Finds the ids of stored items by their content hash. Without ``parts`` it finds nothing.

    That of a large store lies in a memory map: 24 bytes per stored row, and the ids that are not listed.

    Parameters
    ----------
    parts : iterable of (pyarrow.ChunkedArray of str, pyarrow.ChunkedArray of str)
        Content hashes and ids in parts, so that memory never holds all of them.
    ids : pyarrow.ChunkedArray of str, optional
        The ids of a listing.
    rows : IdIndex, optional
        Finds the rows of these.
    """

    def __init__(self, parts: Parts = (), ids: pa.ChunkedArray | None = None, rows: IdIndex | None = None) -> None:
        ids = pa.chunked_array([], pa.string()) if ids is None else ids
        rows = IdIndex(ids) if rows is None else rows
        others, entries, places = Spool(), Spool(), len(ids)
        for hashes, part_ids in parts:
            valid = _is_digest(hashes)
            first, second = _keys(hashes.filter(valid))
            part_ids = part_ids.filter(valid)
            at = rows.find(part_ids)
            unlisted = np.flatnonzero(at < 0)
            at[unlisted] = np.arange(places, places + len(unlisted))
            places += len(unlisted)
            others.add(pa.table([part_ids.take(pa.array(unlisted))], ["id"]))
            entries.add(_in_order(first, second, at))
        # The ids of the listing, then those of other stored items: an entry's place is that of its id.
        others_ids = [chunk for table in others.finish() for chunk in table.column("id").chunks]
        self._ids = pa.chunked_array([*ids.chunks, *others_ids], pa.string())
        self._parts = _merged([NOTHING, *map(_entries, entries.finish())])

    def find(self, digest: str) -> str | None:
        """Return the id of an item with this content, or None."""
        return next(self.find_all(digest), None)

    def find_all(self, digest: str) -> Iterator[str]:
        """Yield the ids of all items with this content."""
        for place in self.places(digest).tolist():
            yield self.id_at(place)

    def id_at(self, place: int) -> str:
        """Return the id at a place."""
        return str(self._ids[place].as_py())

    def places(self, digest: str) -> npt.NDArray[np.int64]:
        """Return the places of the items with this content, in order: rows of the listing, then other stored items."""
        first, second = (int(digest[at : at + KEPT_DIGITS // 2], 16) for at in (0, KEPT_DIGITS // 2))
        firsts, seconds, places = self._parts[first * len(self._parts) // KEYS]
        if not len(places):
            return places
        start, stop = np.searchsorted(firsts, np.uint64(first)), np.searchsorted(firsts, np.uint64(first), "right")
        equal: npt.NDArray[np.int64] = places[start:stop][seconds[start:stop] == second]
        return equal


class Contents:
    """The contents of a store as a run needs them: ids by content, and whether a listed row has a content.

    Parameters
    ----------
    parts : iterable of (pyarrow.ChunkedArray of str, pyarrow.ChunkedArray of str)
        Content hashes and ids of the store, in parts.
    ids : pyarrow.ChunkedArray of str
        The ids of the listing.
    rows : IdIndex
        Finds the rows of these.
    """

    def __init__(self, parts: Parts, ids: pa.ChunkedArray, rows: IdIndex) -> None:
        self._index = HashIndex(parts, ids, rows)

    def is_same(self, row: int, digest: str) -> bool:
        """Return whether the store has the id of a row with this content."""
        return row in self._index.places(digest)

    def find(self, row: int, digest: str) -> str | None:
        """Return the id of a stored item with this content, of all the row's own, or None."""
        places = self._index.places(digest)
        if not len(places):
            return None
        return self._index.id_at(row if row in places else int(places[0]))


def _is_digest(hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    # Other strings than SHA-256 digests match no content.
    return pc.fill_null(pc.match_substring_regex(hashes, f"^[0-9a-f]{{{DIGITS}}}$"), False)


def _keys(hashes: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return the first digits of strings of hexadecimal digits as two numbers each, uint64 (2, n)."""
    column = hashes.cast(pa.binary(DIGITS)).combine_chunks()
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8, len(column) * DIGITS, column.offset * DIGITS)
    data = data.reshape(-1, DIGITS)[:, :KEPT_DIGITS]
    digits = (data & 15) + 9 * (data >> 6)  # for "0" to "9" and "a" to "f"
    return np.ascontiguousarray(digits[:, 0::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64).T


def _in_order(*entries: npt.NDArray[np.generic]) -> pa.Table:
    """Return entries in order as a table."""
    order = np.lexsort((entries[2], entries[0]))
    return pa.table([column[order] for column in entries], ["first", "second", "place"])


def _entries(table: pa.Table) -> Entries:
    first, second, place = (column.to_numpy() for column in table.columns)
    return first, second, place


def _merged(runs: list[Entries]) -> list[Entries]:
    """Merge entries that are in order within each run into parts, each with an equal share of all possible keys.

    Hashes are spread evenly, so that a part has about `SORTED_ROWS` entries.
    """
    count = max(1, sum(len(first) for first, _, _ in runs) // SORTED_ROWS)
    spool, starts = Spool(), [0] * len(runs)
    for number in range(1, count + 1):
        end = -(-number * KEYS // count)  # the first key of the next part
        stops = [int(np.searchsorted(run[0], np.uint64(end))) if end < KEYS else len(run[0]) for run in runs]
        parts = [[column[a:b] for column in run] for run, a, b in zip(runs, starts, stops, strict=True)]
        spool.add(_in_order(*(np.concatenate(columns) for columns in zip(*parts, strict=True))))
        starts = stops
    return [_entries(table) for table in spool.finish()]
