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


class HashIndex:
    """Finds the id of a stored item by its content hash. Without ``parts`` it finds nothing.

    It holds the ids and 40 bytes per row.

    Parameters
    ----------
    parts : iterable of (pyarrow.ChunkedArray of str, pyarrow.ChunkedArray of str)
        Content hashes and ids in parts, so that memory never holds all hashes as text.
    """

    def __init__(self, parts: Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]] = ()) -> None:
        keys = [np.empty(0, f"S{DIGITS // 2}")]
        ids = []
        for hashes, part_ids in parts:
            valid = _is_digest(hashes)
            keys.append(_packed(hashes.filter(valid)))
            ids.append(part_ids.filter(valid))
        all_keys = np.concatenate(keys)
        self._order = np.argsort(all_keys, kind="stable")
        self._keys = all_keys[self._order]
        self._ids = pa.chunked_array([chunk for part in ids for chunk in part.chunks], pa.string()).combine_chunks()

    def find(self, digest: str) -> str | None:
        """Return the id of an item with this content, or None."""
        return next(self.find_all(digest), None)

    def find_all(self, digest: str) -> Iterator[str]:
        """Yield the ids of all items with this content."""
        if not len(self._keys):
            return
        key = bytes.fromhex(digest)
        at = int(np.searchsorted(self._keys, np.bytes_(key)))
        # Compared as raw bytes, because NumPy strips trailing zeros from bytes scalars.
        while self._keys[at : at + 1].tobytes() == key:
            yield str(self._ids[int(self._order[at])].as_py())
            at += 1


class Contents:
    """The contents of a store as a run needs them: ids by content, and the stored content of each listed row.

    Parameters
    ----------
    parts : iterable of (pyarrow.ChunkedArray of str, pyarrow.ChunkedArray of str)
        Content hashes and ids of the store, in parts.
    ids : pyarrow.ChunkedArray of str
        The ids of the listing.
    """

    def __init__(self, parts: Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]], ids: pa.ChunkedArray) -> None:
        self._listed = ids
        #: The content hash that the store has for each id, uint8 (n, 32); zeros if it has none.
        self.own = np.zeros((len(ids), DIGITS // 2), np.uint8)
        self.index = HashIndex(self._with_own(parts, IdIndex(ids)))

    @classmethod
    def of(cls, ids: pa.ChunkedArray, own: npt.NDArray[np.uint8], index: HashIndex) -> Contents:
        """Return the contents for listed ids, of which ``own``, uint8 (n, 32), are the stored content hashes."""
        contents = cls((), ids)
        contents.own, contents.index = own, index
        return contents

    def _with_own(
        self, parts: Iterable[tuple[pa.ChunkedArray, pa.ChunkedArray]], listed: IdIndex
    ) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
        for hashes, ids in parts:
            rows = listed.find(ids.combine_chunks())
            known = (rows >= 0) & np.asarray(_is_digest(hashes))
            self.own[rows[known]] = _packed(hashes.filter(pa.array(known))).view(np.uint8).reshape(-1, DIGITS // 2)
            yield hashes, ids

    def is_same(self, row: int, digest: str) -> bool:
        """Return whether the store has the id of a row with this content."""
        return bytes(self.own[row]) == bytes.fromhex(digest)

    def find(self, row: int, digest: str) -> str | None:
        """Return the id of a stored item with this content, of all the row's own, or None."""
        return str(self._listed[row].as_py()) if self.is_same(row, digest) else self.index.find(digest)


def _is_digest(hashes: pa.ChunkedArray) -> pa.ChunkedArray:
    # Other strings than SHA-256 digests match no content.
    return pc.fill_null(pc.match_substring_regex(hashes, f"^[0-9a-f]{{{DIGITS}}}$"), False)


def _packed(hashes: pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Return strings of hexadecimal digits as bytes, two digits per byte."""
    column = hashes.cast(pa.binary(DIGITS)).combine_chunks()
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8, len(column) * DIGITS, column.offset * DIGITS)
    digits = (data & 15) + 9 * (data >> 6)  # for "0" to "9" and "a" to "f"
    return np.ascontiguousarray(digits[0::2] << 4 | digits[1::2]).view(f"S{DIGITS // 2}")
