"""Vectors in a mapped file, whose blocks are compared with their checksums when they are first read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin

from embedpipe._utils.checksums import BLOCK, checksum
from embedpipe._utils.config import usable_cores
from embedpipe.errors import StoreError

#: Blocks below which starting threads takes longer than checking.
FEW_BLOCKS = 8


class DamagedMapError(StoreError):
    """A memory map is not as it was written."""

    def __init__(self, path: Path, why: str) -> None:
        self.what = f"the memory map {str(path)!r} was damaged ({why}) and has been deleted"
        super().__init__(f"{self.what}: run this again, and it is made anew")


class MappedVectors(NDArrayOperatorsMixin):
    """A read-only float32 array (n, dim) in a mapped file, which can be used as a NumPy array.

    Each block of 1 MB is compared with its checksum when a process first reads it: ``X[rows]`` checks the blocks of
    these rows, everything else (``np.asarray(X)``, ``X @ w``, ``X.mean()``) all blocks, in parallel. What indexing and
    `numpy.asarray` return are plain arrays.

    Parameters
    ----------
    vectors : float32 array (n, dim)
        The mapped values.
    checksums : sequence of str
        As `embedpipe._utils.checksums.block_checksums` of the values.
    path : Path
        The file, for the message.
    drop : callable
        Deletes the map when it is found to be damaged, so that the next call makes it again.

    Raises
    ------
    DamagedMapError
        On the first read of a damaged block.
    """

    def __init__(
        self, vectors: npt.NDArray[np.float32], checksums: Sequence[str], path: Path, drop: Callable[[], None]
    ) -> None:
        self._vectors, self._checksums, self._path, self._drop = vectors, checksums, path, drop
        self._octets = vectors.reshape(-1).view(np.uint8)
        # Two threads that check the same block at once both find the same, so no lock is needed.
        self._unchecked = np.ones(len(checksums), bool)
        self._row_bytes = 4 * vectors.shape[1]
        self.shape, self.dtype, self.ndim, self.nbytes = vectors.shape, vectors.dtype, 2, vectors.nbytes

    def __len__(self) -> int:
        return len(self._vectors)

    def __repr__(self) -> str:
        return f"MappedVectors({str(self._path)!r}, shape={self.shape})"

    def __getitem__(self, key: Any) -> Any:
        values = self._vectors[key]
        if self._unchecked.any():
            self._check(self._blocks_of(key[0] if isinstance(key, tuple) and key else key))
        return values

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy and dtype in (None, np.float32):
            return self.copy()
        self.check()
        return np.array(self._vectors, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(each) if isinstance(each, MappedVectors) else each for each in inputs]
        return getattr(ufunc, method)(*plain, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # other protocols of NumPy would go around the checks
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()

    def check(self) -> None:
        """Compare all blocks that were not yet read. Raises DamagedMapError."""
        self._check(np.arange(len(self._checksums)))

    def copy(self) -> npt.NDArray[np.float32]:
        """Return all vectors in memory, each block checked while it is in the processor's cache."""
        X = np.empty(self.shape, np.float32)
        to = X.reshape(-1).view(np.uint8)

        def copy_block(block: int) -> None:
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            self._check_block(block)
            to[part] = self._octets[part]

        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(copy_block, range(len(self._checksums))))
        return X

    def _blocks_of(self, rows: Any) -> npt.NDArray[np.intp]:
        """Return the numbers of the blocks that hold rows, given as an index of the first axis."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            chosen = np.array([start, stop - 1] if step > 0 else [stop + 1, start]).clip(0)
            edges = chosen * self._row_bytes // BLOCK + [0, self._row_bytes // BLOCK + 1]
            return np.arange(edges[0], min(edges[1] + 1, len(self._checksums)))
        if rows is None or rows is Ellipsis:
            return np.arange(len(self._checksums))
        numbers = np.asarray(rows)
        numbers = np.flatnonzero(numbers.any(axis=tuple(range(1, numbers.ndim)))) if numbers.dtype == bool else numbers
        first = np.asarray(numbers.reshape(-1), np.int64) % max(1, len(self)) * self._row_bytes
        touched = np.zeros(len(self._checksums), bool)
        for offset in (*range(0, self._row_bytes, BLOCK), self._row_bytes - 1):
            touched[(first + offset) // BLOCK] = True
        return np.flatnonzero(touched)

    def _check(self, blocks: npt.NDArray[np.intp]) -> None:
        left = blocks[self._unchecked[blocks]]
        if len(left) < FEW_BLOCKS:
            for block in left:
                self._check_block(int(block))
            return
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(self._check_block, left.tolist()))

    def _check_block(self, block: int) -> None:
        if self._unchecked[block]:
            if checksum(self._octets[block * BLOCK : (block + 1) * BLOCK]) != self._checksums[block]:
                self._drop()
                raise DamagedMapError(self._path, f"byte {block * BLOCK:,} of its vectors")
            self._unchecked[block] = False
