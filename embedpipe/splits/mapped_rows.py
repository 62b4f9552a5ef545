"""Rows of memory maps that are read when they are used: training data larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.neighbours.exact import Vectors, row_blocks

Rows = npt.NDArray[np.int64]


class MappedRows:
    """Rows of memory maps, joined end to end, which stay on disk. Code that works block by block takes it as an array.

    ``X[rows]`` reads some rows into an array. `take` reads nothing. No function of NumPy or scikit-learn can turn all
    rows into one array.

    Parameters
    ----------
    maps : sequence of float32 arrays (n_mapped, dim_i), or memory maps
    rows : int64 array (n_samples,), optional
        Which of their rows, in this order; all by default.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.splits.mapped_rows import MappedRows
    >>> X = MappedRows([np.float32([[1, 2], [3, 4], [5, 6]])])
    >>> X.take(np.array([2, 0]))[:1]
    array([[5., 6.]], dtype=float32)
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, maps: Sequence[Vectors], rows: Rows | None = None) -> None:
        self._maps, self._rows = list(maps), rows
        self.shape = (len(maps[0]) if rows is None else len(rows), sum(each.shape[1] for each in maps))
        self.nbytes = self.dtype.itemsize * self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"MappedRows(shape={self.shape})"

    def __getitem__(self, key: Any) -> npt.NDArray[np.float32]:
        """Read the rows at positions or in a slice."""
        rows = key if self._rows is None else self._rows[key]
        parts = [np.asarray(each[rows], np.float32) for each in self._maps]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        raise MemoryError(f"{self.shape[0]:,} x {self.shape[1]:,} vectors are to be read block by block")

    def take(self, rows: Rows) -> MappedRows:
        """Return some of the rows, by position."""
        return MappedRows(self._maps, rows if self._rows is None else self._rows[rows])

    def mean(self, axis: int, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
        """Return the mean of each column, as `numpy.mean` with ``axis=0``."""
        if axis != 0:
            raise ValueError(f"axis must be 0, got {axis}")
        total = np.zeros(self.shape[1], dtype)
        for _, block in row_blocks(self):
            total += block.sum(axis=0, dtype=dtype)
        return total / len(self)
