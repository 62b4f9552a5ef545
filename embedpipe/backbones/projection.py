"""A linear map of vectors to fewer values, as a principal component analysis learns it, and its file."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from embedpipe.errors import ReadError, StoreError
from embedpipe.sources.locations import read_bytes

#: Bytes of float64 values per block.
BLOCK_BYTES = 1 << 25


@dataclass(frozen=True, eq=False)
class Projection:
    """Subtracts the mean and multiplies by a matrix, in float64.

    Parameters
    ----------
    mean : float64 array (dim,)
    matrix : float64 array (dim, dimensions)
        One column for each value of the result.
    """

    mean: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]

    def __call__(self, X: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the projected rows of ``X``, float32 (n, dimensions)."""
        projected = np.empty((len(X), self.matrix.shape[1]), np.float32)
        step = max(1, BLOCK_BYTES // (8 * len(self.mean)))
        for start in range(0, len(X), step):
            projected[start : start + step] = (X[start : start + step] - self.mean) @ self.matrix
        return projected

    def to_bytes(self) -> bytes:
        """Return the bytes of a safetensors file."""
        return bytes(save({"matrix": np.ascontiguousarray(self.matrix), "mean": self.mean}))

    @classmethod
    def from_bytes(cls, data: bytes, name: str, sha256: str, dim: int, dimensions: int) -> Projection:
        """Read the file ``name``. Raises StoreError unless it has the hash and the shape that a spec names."""
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreError(f"{name!r} does not have the SHA-256 of the spec: it is damaged or was changed")
        try:
            tensors = load(data)
            mean, matrix = tensors["mean"], tensors["matrix"]
        except (SafetensorError, KeyError) as error:
            raise StoreError(f"{name!r} must be a saved projection: {error}") from error
        fits = (mean.shape, matrix.shape) == ((dim,), (dim, dimensions)) and mean.dtype == matrix.dtype == np.float64
        if not fits or not (np.isfinite(mean).all() and np.isfinite(matrix).all()):
            raise StoreError(f"{name!r} must hold a matrix of {dim} by {dimensions} finite values and a mean")
        return cls(mean, matrix)


@functools.lru_cache(maxsize=16)
def read_projection(location: str, sha256: str, dim: int, dimensions: int) -> Projection:
    """Read a file or URL. Raises StoreError if it is missing or not the one that the spec names."""
    try:
        data = read_bytes(location)
    except ReadError as error:
        raise StoreError(f"the projection of a reduced layer is missing: {error}") from error
    return Projection.from_bytes(data, location, sha256, dim, dimensions)
