"""`TunedRidge` and `TunedRidgeClassifier`, the head ``ridge``: ridge regression with a penalty chosen on held-out rows.

``alpha_`` is chosen in ``_Ridge._solve``. Rows are decomposed once; every further penalty then costs almost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from embedpipe._utils.blas_threads import one_blas_thread
from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import LinearClassifier, check_rows, check_training, check_weights
from embedpipe.estimators.solvers.column_stats import ColumnStats, Floats, Matrix, blocks, scores_of
from embedpipe.estimators.solvers.torch_matrix import move_to_device
from embedpipe.splits.inner import Folds, inner_splits
from embedpipe.splits.mapped_rows import MappedRows

if TYPE_CHECKING:
    from embedpipe.estimators.solvers.torch_matrix import TorchMatrix

#: Default penalties, for standardised features.
ALPHAS = tuple(10.0 ** (quarter / 4) for quarter in range(-4, 25))
#: The penalty if there are too few rows to choose it.
FALLBACK = 100.0


class _ClassTargets:
    """Targets of 1 for the class of a column and -1 for others, (n_samples, n_columns), made where they are used.

    Parameters
    ----------
    position : int64 array (n_samples,)
        The class of each row.
    columns : int64 array (n_columns,)
    """

    def __init__(self, position: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> None:
        self._position, self._columns = position, columns
        self.shape = (len(position), len(columns))

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Floats:
        return np.where(self._position[rows][:, None] == self._columns, 1.0, -1.0)

    def mean(self, rows: npt.NDArray[np.int64], weights: Floats) -> Floats:
        """Return the mean of the targets of rows, whose weights are (n_rows,)."""
        total = weights.sum()
        of_class = np.bincount(self._position[rows], weights, self._columns[-1] + 1)[self._columns]
        return np.asarray((2 * of_class - total) / total)


@dataclass(frozen=True)
class _Decomposition:
    """The decomposition Z = U S V' of the standardised training rows, which gives the solution for any penalty.

    Parameters
    ----------
    basis : float64 array (n_features, rank)
        V.
    squares : float64 array (rank,)
        S squared.
    targets : float64 array (rank, n_outputs)
        V' Z' Y.
    """

    columns: ColumnStats
    mean: Floats
    basis: Floats
    squares: Floats
    targets: Floats

    @classmethod
    def compute(
        cls,
        X: Matrix | TorchMatrix,
        Y: Floats | _ClassTargets,
        rows: npt.NDArray[np.int64],
        weights: Floats | None = None,
    ) -> _Decomposition:
        """Decompose the smaller of Z'Z and ZZ' (Hastie et al., Elements of Statistical Learning, 2009, section 18.3.5).

        With ``weights`` (n_samples,), Z and Y are multiplied by the square roots of the weights.
        """
        weights = np.ones(len(rows)) if weights is None else weights[rows]
        columns = ColumnStats.measure(X, rows, weights)
        mean = Y.mean(rows, weights) if isinstance(Y, _ClassTargets) else np.average(Y[rows], axis=0, weights=weights)
        roots = np.sqrt(weights)[:, None]
        if not isinstance(X, np.ndarray | MappedRows):
            squares, basis, targets = X.eigen_gram(rows, columns, roots, (Y[rows] - mean) * roots)
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
        """Return coefficients (n_outputs, n_features) and intercepts (n_outputs,) for raw features."""
        weights = self.basis @ (self.targets / (self.squares + alpha)[:, None])
        return self.columns.unscaled(weights.T, self.mean)


def _eigh(matrix: Floats) -> tuple[Floats, Floats]:
    """Return the ascending eigenvalues and the eigenvectors of a symmetric matrix, which is overwritten."""
    with one_blas_thread():
        values, vectors = eigh(matrix, overwrite_a=True, check_finite=False)
    return values, vectors


class _Ridge(BaseEstimator):  # type: ignore[misc]
    """Base of both ridge estimators: chooses the penalty and solves for a matrix of targets."""

    trains_on_blocks = True
    coef_: Floats
    intercept_: Floats

    def __init__(self, alphas: Sequence[float] = ALPHAS, *, cv: Folds = None, device: str | None = None) -> None:
        self.alphas = alphas
        self.cv = cv
        self.device = device

    def _solve(
        self, X: Any, Y: Floats | _ClassTargets, y: npt.NDArray[Any], classes: bool, sample_weight: Any = None
    ) -> None:
        weights = check_weights(sample_weight, X)
        alphas = np.sort(np.asarray(self.alphas, np.float64))
        if not len(alphas) or alphas[0] <= 0:
            raise ValueError(f"alphas must be positive numbers, got {self.alphas!r}")
        matrix = move_to_device(X, self.device)
        losses = np.zeros(len(alphas))
        for train, test in inner_splits(self.cv, y, classes, weights=weights) if len(alphas) > 1 else []:
            decomposition = _Decomposition.compute(matrix, Y, train, weights)
            solutions = [decomposition.solution(alpha) for alpha in alphas.tolist()]
            test_weights = None if weights is None else weights[test]
            losses += np.average(_squared_errors(matrix, Y, test, solutions), axis=1, weights=test_weights)
        best = np.argmin(losses) if losses.any() else np.argmin(np.abs(np.log(alphas / FALLBACK)))
        self.alpha_ = float(alphas[best])
        self.coef_, self.intercept_ = _Decomposition.compute(matrix, Y, np.arange(len(X)), weights).solution(
            self.alpha_
        )


def _squared_errors(
    X: Matrix | TorchMatrix,
    Y: Floats | _ClassTargets,
    rows: npt.NDArray[np.int64],
    solutions: Sequence[tuple[Floats, Floats]],
) -> Floats:
    """Return the mean squared error of each row by each solution, (n_solutions, n_rows). Rows are read once."""
    errors = np.empty((len(solutions), len(rows)))
    if not isinstance(X, np.ndarray | MappedRows):
        for number, solution in enumerate(solutions):
            errors[number] = ((scores_of(X, *solution, rows) - Y[rows]) ** 2).mean(axis=1)
        return errors
    for part in blocks(len(rows), X.shape[1]):
        values, targets = X[rows[part]], Y[rows[part]]
        for number, solution in enumerate(solutions):
            errors[number, part] = ((scores_of(values, *solution) - targets) ** 2).mean(axis=1)
    return errors


@public_in("embedpipe.estimators")
class TunedRidgeClassifier(LinearClassifier, _Ridge):
    """Ridge regression on targets of -1 and 1, one for each class, with the penalty chosen by held-out squared error.

    Parameters
    ----------
    alphas : sequence of float
        Penalties to choose from, as in `sklearn.linear_model.Ridge`, on features scaled as `VarianceFloorScaler` does.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which the penalty is chosen; by default 3 folds, or one held-out fifth of more than 20,000 rows.
    device : str, optional
        Torch device to fit on, such as ``cuda``; by default the CPU, without torch. Both compute in float64 and
        agree to about 1e-9.

    Attributes
    ----------
    classes_ : array (n_classes,)
    coef_ : float64 array (n_classes, n_features), or (1, n_features) for two classes
        For raw features: standardisation is folded in.
    intercept_ : float64 array (n_classes,) or (1,)
    alpha_ : float
        The chosen penalty.
    n_features_in_ : int

    References
    ----------
    Hoerl, Kennard: Ridge regression: biased estimation for nonorthogonal problems, Technometrics 12, 1970.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import TunedRidgeClassifier
    >>> X = np.array([[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]])
    >>> TunedRidgeClassifier().fit(X, ["low", "low", "low", "high", "high", "high"]).predict([[1.5]])
    array(['low'], dtype='<U4')
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose ``alpha_`` and fit.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional

        Raises
        ------
        ValueError
            If there are fewer than two classes, or a penalty is not positive.
        UsageError
            If the device cannot be used.
        """
        X, position = self._check_training(X, y)
        columns = np.arange(len(self.classes_)) if len(self.classes_) > 2 else np.ones(1, int)
        self._solve(X, _ClassTargets(position, columns), position, True, sample_weight)
        return self


@public_in("embedpipe.estimators")
class TunedRidge(RegressorMixin, _Ridge):  # type: ignore[misc]
    """Ridge regression with the penalty chosen by held-out squared error.

    Parameters
    ----------
    alphas : sequence of float
        Penalties to choose from, as in `sklearn.linear_model.Ridge`, on features scaled as `VarianceFloorScaler` does.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which the penalty is chosen; by default 3 folds, or one held-out fifth of more than 20,000 rows.
    device : str, optional
        Torch device to fit on, such as ``cuda``; by default the CPU, without torch. Both compute in float64 and
        agree to about 1e-9.

    Attributes
    ----------
    alpha_ : float
        The chosen penalty, the same for all outputs.
    coef_ : float64 array (n_outputs, n_features)
        For raw features: standardisation is folded in.
    intercept_ : float64 array (n_outputs,)
    n_features_in_ : int

    References
    ----------
    Hoerl, Kennard: Ridge regression: biased estimation for nonorthogonal problems, Technometrics 12, 1970.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import TunedRidge
    >>> X = np.arange(6.0)[:, None]
    >>> TunedRidge(alphas=(1e-6,)).fit(X, 2 * X[:, 0] + 1).predict([[10.0]]).round(3)
    array([21.])
    """

    _single_output: bool

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose ``alpha_`` and fit.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : float array (n_samples,) or (n_samples, n_outputs)
        sample_weight : float array (n_samples,), optional

        Raises
        ------
        ValueError
            If a penalty is not positive.
        UsageError
            If the device cannot be used.
        """
        X, y = check_training(self, X, y, multi_output=True, y_numeric=True)
        y = np.asarray(y, np.float64)
        self._single_output = y.ndim == 1
        self._solve(X, y.reshape(len(y), -1), y, False, sample_weight)
        return self

    def predict(self, X: Any) -> Floats:
        """Return the predictions.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples,) or (n_samples, n_outputs), as ``y`` was given
        """
        check_is_fitted(self, "coef_")
        scores = scores_of(check_rows(self, X), self.coef_, self.intercept_)
        return scores[:, 0] if self._single_output else scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
