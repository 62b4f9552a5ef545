"""Checksums of bytes, arrays, files and JSON, which notice damage. They do not stop somebody who writes them anew.

XXH3 with 128 bits (https://xxhash.com) reads about 10 GB a second on one core, faster than disks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.machine.regular_files import open_regular, read_regular
from embedpipe._utils.messages.json_values import parse_json

#: Bytes per block, for files of which a part is read at a time.
BLOCK = 1 << 20

#: Digits of a checksum.
DIGITS = 32

#: Name of the checksum among the values.
CHECKSUM = "checksum"

Octets = bytes | bytearray | memoryview | npt.NDArray[Any]


def checksum(data: Octets) -> str:
    """Return the checksum of bytes or of a C-contiguous array: 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(_view(data))


def row_checksums(rows: npt.NDArray[Any]) -> list[str]:
    """Return the checksum of each row of a C-contiguous array, as `checksum` of it."""
    return [xxhash.xxh3_128_hexdigest(row) for row in rows]


def block_checksums(data: Octets) -> list[str]:
    """Return the checksum of each `BLOCK` bytes. The last block may be shorter; empty data have none."""
    view = _view(data)
    octets = view.cast("B") if view.nbytes else view
    return [checksum(octets[start : start + BLOCK]) for start in range(0, view.nbytes, BLOCK)]


def checksum_of_pieces(pieces: Iterable[Octets]) -> str:
    """Return the checksum of pieces, one after another, as `checksum` of all of them."""
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(_view(piece))
    return digest.hexdigest()


def file_checksum(path: Path) -> str:
    """Return the checksum of the bytes of a file, as `checksum` of all of them. It is read in blocks."""
    with open_regular(path) as file:
        return checksum_of_pieces(iter(lambda: file.read(BLOCK), b""))


class HashedFile:
    """A new file of bytes that are written one after another, with their checksum, as `checksum` of all of them.

    Attributes
    ----------
    size : int
        Bytes that were written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._digest = xxhash.xxh3_128()
        self.size = 0

    @property
    def checksum(self) -> str:
        """The checksum of what was written so far."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> int:
        """Write all bytes of a buffer."""
        view = memoryview(data)
        self._digest.update(view)
        self.size += view.nbytes
        while view.nbytes:
            view = view[self._file.write(view) :]
        return memoryview(data).nbytes

    def tell(self) -> int:
        """Return the position, which is the end."""
        return self.size

    def flush(self) -> None:
        """Nothing waits."""

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that JSON can hold, with their checksum as the last one."""
    return {**values, CHECKSUM: _values_checksum(values)}


def without_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without their checksum. Raises ValueError if it is missing or that of other values."""
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    if values.get(CHECKSUM) != _values_checksum(rest):
        raise ValueError("the values do not have the checksum of the file")
    return rest


def write_json(values: Mapping[str, Any], path: Path, indent: int | None = None) -> None:
    """Write values with their checksum, completely or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(with_checksum(values), indent=indent), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote. Raises ValueError if the file is damaged or was edited, and OSError."""
    try:
        return without_checksum({**parse_json(read_regular(path))})
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def write_checked(path: Path, body: bytes) -> None:
    """Write bytes after their checksum, completely or not at all."""
    with whole_file(path) as part:
        part.write_bytes(checksum(body).encode() + body)


def read_checked(path: Path) -> bytes:
    """Return the bytes that `write_checked` wrote. Raises ValueError if the file is damaged, and OSError."""
    data = read_regular(path)
    body = data[DIGITS:]
    if checksum(body) != data[:DIGITS].decode("ascii"):
        raise ValueError(f"{str(path)!r} must begin with the checksum of what follows")
    return body


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, where somebody may have changed it on purpose."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _values_checksum(values: Mapping[str, Any]) -> str:
    """Return the checksum of values as JSON holds them: tuples are lists, and keys are strings."""
    return checksum(json.dumps(json.loads(json.dumps(values)), sort_keys=True).encode())


def _view(data: Octets) -> memoryview:
    return data.data if isinstance(data, np.ndarray) else memoryview(data)
