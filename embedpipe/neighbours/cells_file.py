"""The file of cells, written by FAISS, and checked before FAISS reads it.

FAISS's reader believes what a file says of itself: 6 of 11 damaged files loaded without an error, one with 2^50 rows.
So the file is compared with that of empty cells of the same kind, which FAISS makes: only counts, centroids, the range
of values and the lists may differ, and the lists must fill the rest of the file.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe.neighbours.cells import BITS, cell_kind, empty_cells, padded_dim
from embedpipe.neighbours.exact import Metric
from embedpipe.neighbours.threads import faiss_alone

#: Where the number of rows is, and the number of cells that a search reads (faiss/impl/index_write.cpp).
COUNTS = (slice(8, 16), slice(45, 53))
#: The header of the quantizer of the centroids ends here, and the centroids begin.
CENTROIDS = 98
#: Begin of the lists: their name, number, and the bytes of a row; then how their sizes are written.
LISTS = struct.Struct("<4sQQ4sQ")


def write_cells(cells: Any, path: Path) -> None:
    """Write cells. Raises OSError if the disk is full."""
    with faiss_alone() as faiss:
        try:
            faiss.write_index(cells, str(path))
        except RuntimeError as error:  # FAISS's words for a full disk
            raise OSError(str(error)) from error


def read_cells(
    path: Path, cells: int, dim: int, rows: int, metric: Metric, bits: int = 8, *, mapped: bool = True
) -> Any:
    """Read what `write_cells` wrote.

    Parameters
    ----------
    path : Path
    cells, dim, rows : int
        Number of cells, length of the vectors, number of rows.
    metric : str
    bits : int
    mapped : bool
        Leave the rows in the file: they can be searched and not changed.

    Raises
    ------
    ValueError
        If the file is no such cells.
    OSError
        If it cannot be read.
    """
    # Version 0.2.0 kept differences in 8 bits by cosine too.
    kinds = dict.fromkeys((cell_kind(metric, bits), f"QT_{bits}bit"))
    reasons = [_difference(path, cells, dim, rows, metric, kind) for kind in kinds]
    if (why := reasons[0]) and all(reasons):
        raise ValueError(f"{path.name} holds no {cells:,} cells of {rows:,} rows of {dim:,} values: {why}")
    with faiss_alone() as faiss:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP if mapped else 0)


def _difference(path: Path, cells: int, dim: int, rows: int, metric: Metric, values: str) -> str | None:
    """Return in what the file differs from one with so many cells and rows; ``values`` is a `cell_kind`."""
    size, wide = path.stat().st_size, padded_dim(dim)
    if not (0 < cells <= size // (4 * wide) and 0 <= rows <= size // 8):
        return "it is too short"
    zeros = np.zeros((cells, wide), np.float32)
    empty = empty_cells(zeros, metric, values, zeros[:1])
    with faiss_alone() as faiss:
        template = faiss.serialize_index(empty).tobytes()
    start = template.rindex(b"ilar")
    with path.open("rb") as file:
        head = file.read(start + LISTS.size)
        if len(head) < start + LISTS.size:
            return "it is cut off"
        own, code_size = head[:start], struct.unpack_from("<Q", template, start + 12)[0]
        ranges = 0 if values == cell_kind("cosine", BITS[0]) else 8 * wide  # of values, which bytes have not
        trained = slice(start - 9 - ranges, start - 9)
        variable = [*COUNTS, slice(CENTROIDS, CENTROIDS + 4 * zeros.size), trained]
        if struct.unpack_from("<Q", own, COUNTS[0].start)[0] != rows or _without(own, variable) != _without(
            template[:start], variable
        ):
            return "its header is another one"
        name, count, code, kind, length = LISTS.unpack_from(head, start)
        if (name, count, code) != (b"ilar", cells, code_size) or kind not in (b"full", b"sprs") or length > 2 * cells:
            return "the header of its lists is another one"
        sizes = np.frombuffer(file.read(8 * length), "<u8")
    if kind == b"sprs":
        if len(sizes) % 2 or (sizes[::2] >= cells).any():
            return "its lists have other numbers"
        sizes = sizes[1::2]
    elif length != cells:
        return "it has another number of lists"
    if len(sizes) and (sizes.max() > rows or int(sizes.sum()) != rows):
        return "its lists have other sizes"
    expected = start + LISTS.size + 8 * length + rows * (code_size + 8)
    return None if size == expected else f"it has {size:,} bytes, not {expected:,}"


def _without(octets: bytes, parts: list[slice]) -> bytes:
    """Return bytes with some parts as zeros."""
    blank = bytearray(octets)
    for part in parts:
        blank[part] = bytes(part.stop - part.start)
    return bytes(blank)
