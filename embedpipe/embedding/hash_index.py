"""Lookup of stored items by content hash."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
            # Other strings than SHA-256 digests match no content.
            valid = pc.fill_null(pc.match_substring_regex(hashes, f"^[0-9a-f]{{{DIGITS}}}$"), False)
            keys.append(_packed(hashes.filter(valid)))
            ids.append(part_ids.filter(valid))
        all_keys = np.concatenate(keys)
        self._order = np.argsort(all_keys, kind="stable")
        self._keys = all_keys[self._order]
        self._ids = pa.chunked_array([chunk for part in ids for chunk in part.chunks], pa.string()).combine_chunks()

    def find(self, digest: str) -> str | None:
        """Return the id of an item with this content, or None."""
        if not len(self._keys):
            return None
        key = bytes.fromhex(digest)
        at = int(np.searchsorted(self._keys, np.bytes_(key)))
        # Compared as raw bytes, because NumPy strips trailing zeros from bytes scalars.
        if self._keys[at : at + 1].tobytes() == key:
            return str(self._ids[int(self._order[at])].as_py())
        return None


def _packed(hashes: pa.ChunkedArray) -> npt.NDArray[np.bytes_]:
    """Return strings of hexadecimal digits as bytes, two digits per byte."""
    column = hashes.cast(pa.binary(DIGITS)).combine_chunks()
    data = np.frombuffer(column.buffers()[1] or b"", np.uint8, len(column) * DIGITS, column.offset * DIGITS)
    digits = (data & 15) + 9 * (data >> 6)  # for "0" to "9" and "a" to "f"
    return np.ascontiguousarray(digits[0::2] << 4 | digits[1::2]).view(f"S{DIGITS // 2}")
