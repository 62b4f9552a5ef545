"""Vectors in the file of a FAISS flat index, whose header is checked before FAISS reads it."""

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
        faiss.write_index(index, str(path))


def read_flat(path: str | Path, shape: tuple[int, int], metric: Metric) -> npt.NDArray[np.float32]:
    """Read the file that `write_flat` wrote.

    FAISS's reader is not safe for manipulated files, so kind, shape and size are checked first.

    Raises
    ------
    HeadError
        If the file is missing, or is not a flat index of that metric and shape.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise HeadError(f"cannot read {str(path)!r}: {error}") from error
    count, dim = shape
    letters, kind = KINDS[metric]
    header = HEADER.unpack(head) if len(head) == HEADER.size else ()
    expected = (letters, dim, count, *header[3:6], kind, count * dim)
    if header != expected or size != HEADER.size + 4 * count * dim:
        raise HeadError(
            f"{str(path)!r} is not a flat {metric} index of {count:,} vectors of {dim:,} values: "
            "the head was damaged or changed: fit it again"
        )
    with faiss_alone() as faiss:
        index = faiss.read_index(str(path))
        return np.array(faiss.rev_swig_ptr(index.get_xb(), count * dim).reshape(shape))
