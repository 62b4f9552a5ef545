"""Lookup of stored items by content hash, and of the stored content of listed items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.store.id_index import IdIndex

#: Characters of a content hash: SHA-256, as hexadecimal digits.
DIGITS = 64

#: Characters by which contents are told apart: 128 bits of SHA-256.
KEPT_DIGITS = 32

Parts = Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]]


class HashIndex:
    """Finds the ids of stored items by their content hash. Without ``parts`` it finds nothing.

    It holds 20 bytes per stored row, and the ids that are not listed.

    Parameters
    ----------
    parts : iterable of (pyarrow.ChunkedArray of str, pyarrow.ChunkedArray of str)
        Content hashes and ids in parts, so that memory never holds all hashes as text.
    ids : pyarrow.ChunkedArray of str, optional
        The ids of a listing.
    rows : IdIndex, optional
        Finds the rows of these.
    """

    def __init__(self, parts: Parts = (), ids: pa.ChunkedArray | None = None, rows: IdIndex | None = None) -> None:
        self._ids = pa.chunked_array([], pa.string()) if ids is None else ids
        rows = IdIndex(self._ids) if rows is None else rows
        own, known = np.zeros((len(self._ids), 2), np.uint64), np.zeros(len(self._ids), bool)
        others, other_keys = [*self._ids.chunks], [np.empty((0, 2), np.uint64)]
        for hashes, part_ids in parts:
            valid = _is_digest(hashes)
            keys, part_ids = _packed(hashes.filter(valid)), part_ids.filter(valid)
            at = rows.find(part_ids)
            listed = at >= 0
            own[at[listed]], known[at[listed]] = keys[listed], True
            other_keys.append(keys[~listed])
            others += part_ids.filter(pa.array(~listed)).chunks
        places = np.flatnonzero(np.concatenate([known, np.ones(sum(map(len, other_keys)), bool)]))
        places = places.astype(np.min_scalar_type(len(known) + len(places)))
        first, second = (np.concatenate([own[known, half], *(keys[:, half] for keys in other_keys)]) for half in (0, 1))
        del own, known, other_keys
        self._ids = pa.chunked_array(others, pa.string())
        # In the order of the first half; entries of one content are in the order of their places.
        order = np.argsort(first, kind="stable")
        self._places = places[order]
        del places
        self._first = first[order]
        del first
        self._second = second[order]

    def find(self, digest: str) -> str | None:
        """Return the id of an item with this content, or None."""
        return next(self.find_all(digest), None)

    def find_all(self, digest: str) -> Iterator[str]:
        """Yield the ids of all items with this content."""
        start, stop, second = self._entries(digest)
        for at in range(start, stop):
            if self._second[at] == second:
                yield self.id_at(int(self._places[at]))

    def id_at(self, place: int) -> str:
        """Return the id of a row of the listing; those of other stored items come after them."""
        return str(self._ids[place].as_py())

    def is_of(self, row: int, digest: str) -> bool:
        """Return whether the item with the id of a row of the listing has this content."""
        start, stop, second = self._entries(digest)
        at = start + int(np.searchsorted(self._places[start:stop], row))
        return at < stop and bool(self._places[at] == row and self._second[at] == second)

    def _entries(self, digest: str) -> tuple[int, int, int]:
        """Return where entries with the first half of a content begin and end, and the second half."""
        first, second = (int(digest[at : at + KEPT_DIGITS // 2], 16) for at in (0, KEPT_DIGITS // 2))
        start, stop = (int(np.searchsorted(self._first, np.uint64(first), side)) for side in ("left", "right"))
        return start, stop, second


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
        return self._index.is_of(row, digest)

    def find(self, row: int, digest: str) -> str | None:
        """Return the id of a stored item with this content, of all the row's own, or None."""
        return self._index.id_at(row) if self.is_same(row, digest) else self._index.find(digest)


def _is_digest(hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    # Other strings than SHA-256 digests match no content.
    return pc.fill_null(pc.match_substring_regex(hashes, f"^[0-9a-f]{{{DIGITS}}}$"), False)


def _packed(hashes: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return the first digits of strings of hexadecimal digits as two numbers each, uint64 (n, 2)."""
    column = hashes.cast(pa.binary(DIGITS)).combine_chunks()
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8, len(column) * DIGITS, column.offset * DIGITS)
    data = data.reshape(-1, DIGITS)[:, :KEPT_DIGITS]
    digits = (data & 15) + 9 * (data >> 6)  # for "0" to "9" and "a" to "f"
    return np.ascontiguousarray(digits[:, 0::2] << 4 | digits[:, 1::2]).view(">u8").astype(np.uint64)
