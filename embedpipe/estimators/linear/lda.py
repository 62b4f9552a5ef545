"""Linear discriminants with a shrunken covariance, by a system as small as the rows or the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, softmax

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import LinearClassifier
from embedpipe.estimators.solvers.column_stats import Columns, Floats, blocks
from embedpipe.estimators.solvers.torch_matrix import place

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import DeviceMatrix

#: Least share of a column's variance on the diagonal: columns that repeat each other stay solvable where nothing is
#: shrunk.
FLOOR = 1e-9


@public_in("embedpipe.estimators")
class ShrunkenLDA(LinearClassifier):
    """Linear discriminants, each class's covariance shrunk as Ledoit and Wolf (2004) do.

    It is ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")`` of scikit-learn. The covariance within
    classes is a diagonal and a product of the rows; so fewer rows than features need a system of rows only
    (Woodbury's identity), and more rows a Cholesky decomposition, where scikit-learn solves least squares of all
    features by singular values. All of it is in float64: in float32 the Grams were a quarter quicker, and coefficients
    wrong by up to 5e-4 where few directions hold most of the variance.

    A column that does not vary within any class, where nothing is shrunk either, gets the coefficient 0, as there.

    Parameters
    ----------
    device : str, optional
        A device of torch to fit on, such as ``cuda``; by default the processor, without torch. Both compute in float64,
        and their solutions are alike to some 1e-9.

    Attributes
    ----------
    priors_ : float64 array (n_classes,)
        Each class's share of the rows.
    """

    def __init__(self, *, device: str | None = None) -> None:
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Estimate and solve: ``X`` (n_samples, n_features), ``y`` (n_samples,).

        Raises
        ------
        ValueError
            If there is one class only, or no class has two rows.
        """
        X, position = self._check_training(X, y)
        counts = np.bincount(position)
        if counts.max() == 1:
            raise ValueError(f"each of the {len(X)} rows of X has a class of its own: some class needs at least two")
        self.priors_ = counts / len(X)
        with one_blas_thread(X.nbytes < SMALL):
            means, self.coef_ = _solution(place(X, self.device), position, counts)
        logs = np.log(self.priors_)
        if len(counts) == 2:
            self.intercept_ = np.diff(logs) - self.coef_ @ means.mean(axis=0)
        else:
            self.intercept_ = logs - np.einsum("kd,kd->k", means, self.coef_) / 2
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return probabilities of the classes, float64 (n_samples, n_classes)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        shares: Floats = softmax(scores, axis=1)
        return shares


def _solution(
    X: npt.NDArray[Any] | DeviceMatrix, position: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Return the classes' means, and the covariance's inverse times them (of two, times second less first)."""
    rows, dim = X.shape
    means, weights = np.empty((len(counts), dim)), np.empty(len(counts))
    wide = rows < dim
    diagonal, gram = np.zeros(dim), np.zeros((0 if wide else dim, dim))
    for at, own in enumerate(np.split(np.argsort(position, kind="stable"), np.cumsum(counts)[:-1])):
        columns = Columns.of(X, own, level=False)
        product, lengths = _product(X, own, columns)
        shrinkage, variance = _ledoit_wolf(product, lengths, dim)
        means[at], weights[at] = columns.mean, (1 - shrinkage) / rows
        diagonal += len(own) / rows * shrinkage * variance * columns.scale**2
        if len(own) >= dim:
            gram += weights[at] * (product * columns.scale * columns.scale[:, None])
    right = means if len(counts) > 2 else means[1:] - means[:1]

    left = np.flatnonzero(counts[position] < dim)
    if not isinstance(X, np.ndarray):
        gram += X.gram_apart(left, position[left], means, np.sqrt(weights))
        return means, _solved_by_columns(gram, diagonal, right)

    def apart(part: npt.NDArray[np.int64]) -> Floats:
        """Return how far rows are from their class's mean, times the root of their weight in the covariance."""
        own = position[part]
        return (X[part] - means[own]) * np.sqrt(weights[own])[:, None]

    if wide:
        return means, _solved_by_rows(apart(np.arange(rows)), diagonal, right)
    for part in blocks(len(left), dim):
        B = apart(left[part])
        gram += B.T @ B
    return means, _solved_by_columns(gram, diagonal, right)


def _product(
    X: npt.NDArray[Any] | DeviceMatrix, rows: npt.NDArray[np.int64], columns: Columns
) -> tuple[Floats, Floats]:
    """Return the smaller of Z'Z and ZZ' of the standardised rows Z, and their squared lengths (n_rows,)."""
    if not isinstance(X, np.ndarray):
        return X.product(rows, columns)
    dim = X.shape[1]
    if len(rows) < dim:
        Z = (X[rows] - columns.mean) / columns.scale
        product = Z @ Z.T
        return product, product.diagonal()
    product, lengths = np.zeros((dim, dim)), np.empty(len(rows))
    for part in blocks(len(rows), dim):
        Z = (X[rows[part]] - columns.mean) / columns.scale
        product += Z.T @ Z
        lengths[part] = np.einsum("nd,nd->n", Z, Z)
    return product, lengths


def _ledoit_wolf(product: Floats, lengths: Floats, dim: int) -> tuple[float, float]:
    """Return the shrinkage, 0 to 1, and the columns' mean variance, to which covariances are shrunk.

    Parameters
    ----------
    product : float64 array (n_features, n_features) or (n_rows, n_rows)
        Z'Z or ZZ' of centred rows Z: the sum of squares is the same.
    lengths : float64 array (n_rows,)
        Squared lengths of the rows.
    """
    rows = len(lengths)
    variance = float(lengths.sum()) / rows / dim
    squares = float(np.vdot(product, product)) / rows**2
    apart = squares - dim * variance**2
    noise = (float(lengths @ lengths) / rows - squares) / rows
    if dim == 1 or noise <= 0 or apart <= 0:
        return 0.0, variance
    return min(noise / apart, 1.0), variance


def _solved_by_rows(B: Floats, diagonal: Floats, right: Floats) -> Floats:
    """Return ``right @ inv(B'B + diagonal)`` by Woodbury's identity, with columns scaled to variance one."""
    scale = _inverse_roots(diagonal + np.einsum("nd,nd->d", B, B))
    scale /= np.sqrt(np.maximum(diagonal * scale**2, FLOOR))
    B *= scale
    right = right * scale
    inner = B @ B.T
    inner.flat[:: len(B) + 1] += 1
    factor = cho_factor(inner, lower=True, overwrite_a=True, check_finite=False)
    solved: Floats = (right - cho_solve(factor, B @ right.T, check_finite=False).T @ B) * scale
    return solved


def _solved_by_columns(gram: Floats, diagonal: Floats, right: Floats) -> Floats:
    """Return ``right @ inv(gram + diagonal)`` by Cholesky's decomposition, with columns scaled to variance one."""
    scale = _inverse_roots(diagonal + gram.diagonal())
    gram *= scale
    gram *= scale[:, None]
    gram.flat[:: len(gram) + 1] += np.maximum(diagonal * scale**2, FLOOR)
    factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    solved: Floats = cho_solve(factor, (right * scale).T, check_finite=False).T * scale
    return solved


def _inverse_roots(variances: Floats) -> Floats:
    """Return one over the standard deviations, 0 for those of nothing, which makes the coefficient 0."""
    return np.divide(1, np.sqrt(variances), out=np.zeros_like(variances), where=variances > 0)
