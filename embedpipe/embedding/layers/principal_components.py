"""Principal components of more vectors than memory holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from embedpipe._utils.option_names import option
from embedpipe.backbones.projection import Projection
from embedpipe.errors import UsageError

Floats = npt.NDArray[np.float64]

#: A direction counts as one in which vectors vary if its variance is at least this share of the largest.
LEAST_VARIANCE = 1e-10

#: Rows that are float64 at a time.
ROWS = 4096

#: Longest vectors: their covariances need 8 bytes times the square of their length.
LONGEST = 16_384


class Components(NamedTuple):
    """A projection to principal components, and the share of the variance that it keeps."""

    projection: Projection
    explained: float


def fit_components(blocks: Iterable[npt.NDArray[np.float32]], dimensions: int, *, whiten: bool) -> Components:
    """Learn the principal components of the rows of all blocks, which are read once.

    The covariances are summed block by block in float64, around the mean of the first block, so that nothing is lost
    where the mean is large beside the variance. So the result is that of all rows at once, and memory depends on the
    length of the vectors only. It is scikit-learn's ``PCA(svd_solver="covariance_eigh")``.

    Parameters
    ----------
    blocks : iterable of float32 array (n, dim)
    dimensions : int
        Number of components.
    whiten : bool
        Scale every component to variance 1.

    Raises
    ------
    UsageError
        The rows do not vary in so many directions, or are too long.
    """
    count, shift, total, products = 0, np.empty(0), np.empty(0), np.empty((0, 0))
    for block in blocks:
        if not count:
            _check_length(block.shape[1], dimensions)
            shift = block.mean(axis=0, dtype=np.float64)
            total, products = np.zeros(len(shift)), np.zeros((len(shift), len(shift)))
        for start in range(0, len(block), ROWS):
            moved = block[start : start + ROWS] - shift
            count, total = count + len(moved), total + moved.sum(axis=0)
            products += moved.T @ moved
    if count < 2:
        raise UsageError(f"principal components need at least 2 rows that are not held out, got {count}")
    centre = total / count
    covariance = (products - count * np.outer(centre, centre)) / (count - 1)
    kept = [len(shift) - dimensions, len(shift) - 1]
    variances, vectors = eigh(covariance, subset_by_index=kept, overwrite_a=False)
    variances, vectors = variances[::-1], vectors[:, ::-1]
    varying = int((variances > LEAST_VARIANCE * max(variances[0], 0)).sum())
    if not varying:
        raise UsageError(f"vectors must differ to have principal components, and all {count:,} are equal")
    if varying < dimensions:
        raise UsageError(
            f"{option('dimensions')} must be <= {varying}, as the {count:,} vectors vary in that many directions only, "
            f"got {dimensions}"
        )
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(dimensions)]
    vectors = vectors * np.sign(largest)  # otherwise the sign of a component is chance
    matrix = vectors / np.sqrt(variances) if whiten else vectors
    return Components(
        Projection(shift + centre, np.ascontiguousarray(matrix)), float(variances.sum() / covariance.trace())
    )


def _check_length(dim: int, dimensions: int) -> None:
    if not dimensions < dim:
        raise UsageError(f"{option('dimensions')} must be < {dim}, the length of the vectors, got {dimensions}")
    if dim > LONGEST:
        raise UsageError(f"vectors must have at most {LONGEST:,} values for principal components, got {dim:,}")
