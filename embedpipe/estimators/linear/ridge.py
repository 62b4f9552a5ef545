"""Ridge regression by its normal equations, with the penalty chosen on held-out rows: the memory of one block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import FLOATS, LinearClassifier
from embedpipe.estimators.solvers.column_stats import Columns, Floats, blocks, scores_of
from embedpipe.estimators.solvers.torch_matrix import place
from embedpipe.splits.inner import Folds, inner_splits

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import DeviceMatrix

#: Penalties on standardised features. Once decomposed, another one costs next to nothing.
ALPHAS = tuple(10.0 ** (quarter / 4) for quarter in range(-4, 25))
#: Used where there are too few rows to choose.
FALLBACK = 100.0


@dataclass(frozen=True)
class _Decomposed:
    """Standardised, centred training rows Z = U S V', and what a ridge solution of any penalty needs of them.

    Parameters
    ----------
    basis : float64 array (n_features, rank)
        V.
    squares : float64 array (rank,)
        S squared.
    targets : float64 array (rank, n_outputs)
        V' Z' Y.
    """

    columns: Columns
    mean: Floats
    basis: Floats
    squares: Floats
    targets: Floats

    @classmethod
    def of(
        cls,
        X: npt.NDArray[Any] | DeviceMatrix,
        Y: Floats,
        rows: npt.NDArray[np.int64],
        weights: Floats | None = None,
    ) -> _Decomposed:
        """Decompose by whichever of Z'Z and ZZ' is smaller (Hastie et al., Elements, 2009, section 18.3.5).

        With ``weights`` (n_samples,) a row counts as often as its weight says: Z and Y are multiplied by their roots.
        """
        weights = np.ones(len(rows)) if weights is None else weights[rows]
        columns = Columns.of(X, rows, weights)
        mean = np.average(Y[rows], axis=0, weights=weights)
        roots = np.sqrt(weights)[:, None]
        if not isinstance(X, np.ndarray):
            squares, basis, targets = X.decomposed(rows, columns, roots, (Y[rows] - mean) * roots)
            return cls(columns, mean, basis, np.maximum(squares, 0), targets)
        dim = X.shape[1]
        if len(rows) > dim:
            gram, right = np.zeros((dim, dim)), np.zeros((dim, Y.shape[1]))
            for part in blocks(len(rows), dim):
                Z = (X[rows[part]] - columns.mean) / columns.scale * roots[part]
                gram += Z.T @ Z
                right += Z.T @ ((Y[rows[part]] - mean) * roots[part])
            squares, basis = _eigh(gram)
            return cls(columns, mean, basis, np.maximum(squares, 0), basis.T @ right)
        Z = (X[rows] - columns.mean) / columns.scale * roots
        squares, left = _eigh(Z @ Z.T)
        kept = squares > len(rows) * np.finfo(np.float64).eps * squares[-1]
        squares, left = squares[kept], left[:, kept]
        basis = Z.T @ (left / np.sqrt(squares))
        targets = np.sqrt(squares)[:, None] * (left.T @ ((Y[rows] - mean) * roots))
        return cls(columns, mean, basis, squares, targets)

    def solution(self, alpha: float) -> tuple[Floats, Floats]:
        """Return coefficients (n_outputs, n_features) and intercept (n_outputs,) for features as they are."""
        weights = self.basis @ (self.targets / (self.squares + alpha)[:, None])
        return self.columns.unscaled(weights.T, self.mean)


def _eigh(matrix: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues, going up, and eigenvectors of a symmetric matrix, which is overwritten."""
    with one_blas_thread():
        values, vectors = eigh(matrix, overwrite_a=True, check_finite=False)
    return values, vectors


class _Ridge(BaseEstimator):  # type: ignore[misc]
    """Parameters, and the solution for a matrix of targets."""

    coef_: Floats
    intercept_: Floats

    def __init__(self, alphas: Sequence[float] = ALPHAS, *, cv: Folds = None, device: str | None = None) -> None:
        self.alphas = alphas
        self.cv = cv
        self.device = device

    def _solve(
        self, X: npt.NDArray[Any], Y: Floats, y: npt.NDArray[Any], classes: bool, sample_weight: Any = None
    ) -> None:
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=np.float64)
        alphas = np.sort(np.asarray(self.alphas, np.float64))
        if not len(alphas) or alphas[0] <= 0:
            raise ValueError(f"alphas={self.alphas!r} must be numbers above 0")
        placed = place(X, self.device)
        losses = np.zeros(len(alphas))
        for train, test in inner_splits(self.cv, y, classes) if len(alphas) > 1 else []:
            parts = _Decomposed.of(placed, Y, train, weights)
            counted = None if weights is None else weights[test]
            for i, alpha in enumerate(alphas.tolist()):
                squares = (scores_of(placed, *parts.solution(alpha), rows=test) - Y[test]) ** 2
                losses[i] += np.average(squares.mean(axis=1), weights=counted)
        best = np.argmin(losses) if losses.any() else np.argmin(np.abs(np.log(alphas / FALLBACK)))
        self.alpha_ = float(alphas[best])
        self.coef_, self.intercept_ = _Decomposed.of(placed, Y, np.arange(len(X)), weights).solution(self.alpha_)


@public_in("embedpipe.estimators")
class TunedRidgeClassifier(LinearClassifier, _Ridge):
    """Ridge regression on -1 and 1, one output a class; the penalty by held-out squared error.

    Parameters
    ----------
    alphas : sequence of float
        Penalties to choose from, as in `sklearn.linear_model.Ridge`, on features scaled by `VarianceFloorScaler`.
    cv : int, iterable of (train rows, held-out rows), or None
        On which rows to choose; by default 3 folds, or one held-out fifth of more than 20,000 rows.
    device : str, optional
        A device of torch to fit on, such as ``cuda``; by default the processor, without torch. Both compute in float64,
        and their solutions are alike to some 1e-9.

    Attributes
    ----------
    alpha_ : float
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose ``alpha_`` and fit: ``X`` (n_samples, n_features), ``y`` and ``sample_weight`` (n_samples,)."""
        X, position = self._check_training(X, y)
        known = np.arange(len(self.classes_)) if len(self.classes_) > 2 else np.ones(1, int)
        self._solve(X, np.where(position[:, None] == known, 1.0, -1.0), position, True, sample_weight)
        return self


@public_in("embedpipe.estimators")
class TunedRidge(RegressorMixin, _Ridge):  # type: ignore[misc]
    """Ridge regression; the penalty by held-out squared error. Parameters are those of `TunedRidgeClassifier`.

    Attributes
    ----------
    alpha_ : float
        One for all outputs.
    coef_ : float64 array (n_outputs, n_features)
    intercept_ : float64 array (n_outputs,)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose ``alpha_`` and fit: ``X`` (n_samples, n_features), ``y`` (n_samples,) or (n_samples, n_outputs)."""
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self._single = y.ndim == 1
        self._solve(X, y.reshape(len(y), -1), y, False, sample_weight)
        return self

    def predict(self, X: Any) -> Floats:
        """Return predictions, float64 (n_samples,) or (n_samples, n_outputs)."""
        check_is_fitted(self, "coef_")
        scores = scores_of(validate_data(self, X, reset=False, dtype=FLOATS), self.coef_, self.intercept_)
        return scores[:, 0] if self._single else scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
