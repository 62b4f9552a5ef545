"""Vectors in the file of a FAISS flat index, written by FAISS and read by NumPy.

FAISS's reader believes a header: one that was manipulated makes it read beyond the file. The vectors follow the header
as they are, so NumPy reads them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpipe.errors import HeadError
from embedpipe.neighbours.exact import Metric
from embedpipe.neighbours.threads import faiss_alone

#: The header of a flat index (faiss/impl/index_write.cpp): four letters, the dimension, the number of vectors, two
#: fillers, whether it is trained, the metric, and the number of values that follow.
HEADER = struct.Struct("<4siqqqBiQ")
KINDS: dict[str, tuple[bytes, int]] = {"cosine": (b"IxFI", 0), "euclidean": (b"IxF2", 1)}


def write_flat(path: str | Path, rows: npt.NDArray[np.float32], metric: Metric) -> None:
    """Write vectors, float32 (n_rows, dim), as a flat index: of inner products for ``cosine``, else L2."""
    with faiss_alone() as faiss:
        index = (faiss.IndexFlatIP if metric == "cosine" else faiss.IndexFlatL2)(rows.shape[1])
        index.add(np.ascontiguousarray(rows, np.float32))
        try:
            faiss.write_index(index, str(path))
        except RuntimeError as error:  # FAISS's words for a full disk
            raise OSError(f"cannot write {str(path)!r}: {error}") from error


def read_flat(path: str | Path, shape: tuple[int, int], metric: Metric) -> npt.NDArray[np.float32]:
    """Read the vectors of the file that `write_flat` wrote.

    Raises
    ------
    HeadError
        If the file is missing, or is not a flat index of that metric and shape.
    """
    path = Path(path)
    count, dim = shape
    letters, kind = KINDS[metric]
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
            header = HEADER.unpack(head) if len(head) == HEADER.size else ()
            expected = (letters, dim, count, *header[3:6], kind, count * dim)
            if header != expected or path.stat().st_size != HEADER.size + 4 * count * dim:
                raise HeadError(
                    f"{str(path)!r} is not a flat {metric} index of {count:,} vectors of {dim:,} values: "
                    "the head was damaged or changed: fit it again"
                )
            return np.fromfile(file, "<f4", count * dim).reshape(shape).astype(np.float32, copy=False)
    except OSError as error:
        raise HeadError(f"cannot read {str(path)!r}: {error}") from error
