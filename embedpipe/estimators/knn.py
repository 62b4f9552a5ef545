"""`FaissKNNClassifier` and `FaissKNNRegressor`, the heads ``knn``: k nearest neighbours on FAISS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from embedpipe._utils.public import public_in
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.targets import check_no_label_missing
from embedpipe.neighbours import (
    NearRows,
    Tuning,
    make_cells,
    nearest_rows,
    normalised,
    restore_cells,
    tune,
    without_itself,
)
from embedpipe.neighbours.cells import cell_of_rows, centroids_of
from embedpipe.neighbours.exact import METRICS, Metric, float32_scale

Floats = npt.NDArray[np.float64]
WEIGHTS = ("uniform", "distance", "softmax")
#: With more than this share of the cells to search, exact search is used, which is then faster.
MOST_CELLS = 0.5


class _FaissNeighbours(BaseEstimator):  # type: ignore[misc]
    """Base of classifier and regressor: parameters, training rows and the neighbour search."""

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        weights: str | Callable[[Floats], Floats] = "uniform",
        metric: Metric = "euclidean",
        temperature: float = 0.07,
        recall_target: float = 1.0,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.metric = metric
        self.temperature = temperature
        self.recall_target = recall_target
        self.n_jobs = n_jobs

    def _fit_rows(self, X: npt.NDArray[Any]) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        if not callable(self.weights) and self.weights not in WEIGHTS:
            raise ValueError(f"weights must be callable or one of {', '.join(WEIGHTS)}, got {self.weights!r}")
        if self.weights == "softmax" and self.metric != "cosine":
            raise ValueError(f"weights='softmax' needs metric='cosine', got metric={self.metric!r}")
        if self.weights == "softmax" and not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature!r}")
        k = self.n_neighbors
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"n_neighbors must be an integer >= 1, got {self.n_neighbors!r}")
        if not 0 < self.recall_target <= 1:
            raise ValueError(f"recall_target must be in (0, 1], got {self.recall_target!r}")
        if self.n_jobs == 0:
            raise ValueError("n_jobs must be None, -1 or a number of threads, got 0")
        self.rows_ = self._prepare(X)
        self.n_samples_fit_ = len(X)
        self.probes_ = 0
        if self.recall_target < 1:
            self._fit_cells(k)

    def _fit_cells(self, k: int) -> None:
        if self._is_out_of_range(self.rows_):
            raise ValueError("approximate search needs values below 1e12: scale X, or search exactly (recall_target=1)")
        cells = make_cells(self.rows_, self.metric, n_jobs=self.n_jobs)
        tuning, _ = tune(self.rows_, self.metric, cells, self.recall_target, (k,), self.n_jobs)
        self.centroids_, self.cells_ = centroids_of(cells)[:, : self.rows_.shape[1]], cell_of_rows(cells)
        self.probes_, self.candidates_, self.gate_ = tuning.probes[0], tuning.candidates, tuning.gate
        self._near = NearRows(self.rows_, self.metric, cells, self._tuning())

    def _tuning(self) -> Tuning:
        return Tuning((self.n_neighbors,), (self.probes_,), self.candidates_, self.gate_)

    def _is_out_of_range(self, X: npt.NDArray[np.float32]) -> bool:
        return self.metric == "euclidean" and float32_scale(X, X[:0]) != 1

    def __getstate__(self) -> dict[str, Any]:
        """Leave FAISS's cells out, which are made again of the arrays."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_near"}

    def _prepare(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if self.metric == "cosine":
            return normalised(X)
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(X, np.float32)
        if not np.isfinite(rows).all():
            raise ValueError("X has values beyond float32, in which FAISS computes: scale the features first")
        return rows

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> npt.NDArray[np.int64] | tuple[Floats, npt.NDArray[np.int64]]:
        """Find the nearest training rows; ties go to the lower row.

        Parameters
        ----------
        X : array (n_queries, n_features), optional
            None: the training rows, each without itself as a neighbour.
        n_neighbors : int, optional
            None: that of the constructor.
        return_distance : bool

        Returns
        -------
        distances : float64 array (n_queries, n_neighbors), only if ``return_distance``
            Euclidean, or 1 - cosine, ascending.
        positions : int64 array (n_queries, n_neighbors)
            Row numbers of the training data.

        Raises
        ------
        ValueError
            If there are fewer training rows than ``n_neighbors``.
        """
        check_is_fitted(self, "rows_")
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        leave_out = X is None
        most = self.n_samples_fit_ - leave_out
        if not 1 <= k <= most:
            others = ", each without itself" if leave_out else ""
            raise ValueError(
                f"n_neighbors must be in [1, {most}] for {self.n_samples_fit_} training rows{others}, got {k}"
            )
        if leave_out:
            distances, positions = self._nearest(self.rows_, k + 1)
            distances, positions = without_itself(distances, positions, np.arange(len(positions)))
        else:
            distances, positions = self._nearest(self._prepare(self._check(X)), k)
        return (distances, positions) if return_distance else positions

    def _check(self, X: Any) -> npt.NDArray[Any]:
        checked: npt.NDArray[Any] = validate_data(self, X, reset=False, dtype=FLOATS)
        return checked

    def _nearest(self, queries: npt.NDArray[np.float32], k: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        if 0 < self.probes_ <= MOST_CELLS * len(self.centroids_) and not self._is_out_of_range(queries):
            if not hasattr(self, "_near"):
                cells = restore_cells(self.centroids_, self.cells_, self.rows_, self.metric)
                self._near = NearRows(self.rows_, self.metric, cells, self._tuning())
            scores, positions = self._near.search(queries, k, self.n_jobs)
        else:
            scores, positions = nearest_rows(queries, self.rows_, k, self.metric, self.n_jobs)
        return (1 - scores if self.metric == "cosine" else scores), positions

    def _votes(self, X: Any) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return weights, which sum to 1, and training rows of the neighbours, each (n_queries, n_neighbors)."""
        distances, positions = self.kneighbors(X)
        if callable(self.weights):
            weights = np.asarray(self.weights(distances), np.float64)
        elif self.weights == "softmax":
            weights = np.exp((distances[:, :1] - distances) / self.temperature)
        elif self.weights == "distance":
            identical = distances == 0
            with np.errstate(divide="ignore"):
                weights = np.where(identical.any(axis=1, keepdims=True), identical, 1 / distances)
        else:
            weights = np.ones_like(distances)
        total = weights.sum(axis=1, keepdims=True)
        return np.divide(weights, total, out=np.full_like(weights, 1 / weights.shape[1]), where=total != 0), positions


@public_in("embedpipe.estimators")
class FaissKNNClassifier(ClassifierMixin, _FaissNeighbours):  # type: ignore[misc]
    """Classify by the votes of the k nearest training rows, found exactly or approximately by FAISS.

    A replacement of `sklearn.neighbors.KNeighborsClassifier` for dense data, with the same defaults. Rows are stored as
    float32; distances and votes are float64, and ties go to the lower row.

    Parameters
    ----------
    n_neighbors : int
    weights : {"uniform", "distance", "softmax"} or callable
        Weights of the neighbours' votes. ``softmax`` gives a neighbour with cosine s the weight exp(s / temperature),
        as DINO does. A callable takes and returns distances (n_queries, n_neighbors).
    metric : {"euclidean", "cosine"}
        With ``cosine``, a row of zeros has distance 1 to every other row.
    temperature : float
        Of ``weights="softmax"``, above 0.
    recall_target : float
        1: exact search. Below 1: approximate search. ``fit`` clusters the training rows into cells, and measures in how
        many cells a query must search to find this share of its ``n_neighbors`` nearest rows, on average over training
        rows. Queries unlike the training rows are compared with all of them.
    n_jobs : int, optional
        Threads of FAISS; None: all.

    Attributes
    ----------
    classes_ : array (n_classes,)
    rows_ : float32 array (n_samples, n_features)
        The training rows; of unit length with ``cosine``.
    labels_ : int64 array (n_samples,)
        Their classes, as positions in ``classes_``.
    probes_ : int
        Number of cells in which a query searches; 0 if the search is exact.
    centroids_ : float32 array (n_cells, n_features)
        Only if ``recall_target`` is below 1.
    cells_ : int32 array (n_samples,)
        The cell of each training row; only if ``recall_target`` is below 1.
    candidates_ : int
        Number of rows per neighbour that are ranked exactly; only if ``recall_target`` is below 1.
    gate_ : float
        Cost of the nearest centroid above which all rows are compared; only if ``recall_target`` is below 1.
    n_samples_fit_, n_features_in_ : int

    References
    ----------
    Caron et al.: Emerging properties in self-supervised vision transformers, ICCV 2021, section 4.1. Wu, Xiong, Yu,
    Lin: Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018, section 3.4.

    Examples
    --------
    >>> from embedpipe.estimators import FaissKNNClassifier
    >>> FaissKNNClassifier(n_neighbors=1).fit([[0.0], [1.0]], ["low", "high"]).predict([[0.9]])
    array(['high'], dtype='<U4')
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Store the training rows.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)

        Raises
        ------
        ValueError
            If a parameter is out of range, or values of ``X`` are beyond float32.
        """
        check_no_label_missing(y)
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self._fit_rows(X)
        self.classes_, self.labels_ = np.unique(y, return_inverse=True)
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return the share of each class in the votes.

        Parameters
        ----------
        X : float array (n_queries, n_features)

        Returns
        -------
        float64 array (n_queries, n_classes)
        """
        weights, positions = self._votes(X)
        shares = np.zeros((len(weights), len(self.classes_)))
        row = np.arange(len(weights))
        for rank in range(weights.shape[1]):
            shares[row, self.labels_[positions[:, rank]]] += weights[:, rank]
        return shares

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class with the most votes; ties go to the first in ``classes_``.

        Parameters
        ----------
        X : float array (n_queries, n_features)

        Returns
        -------
        array (n_queries,)
        """
        shares = self.predict_proba(X)
        labels: npt.NDArray[Any] = self.classes_[shares.argmax(axis=1)]
        return labels


@public_in("embedpipe.estimators")
class FaissKNNRegressor(RegressorMixin, _FaissNeighbours):  # type: ignore[misc]
    """Predict the weighted mean of the k nearest training rows' values, found by FAISS.

    A replacement of `sklearn.neighbors.KNeighborsRegressor` for dense data, with the same defaults.

    Parameters
    ----------
    n_neighbors : int
    weights : {"uniform", "distance", "softmax"} or callable
        Weights of the neighbours' votes. ``softmax`` gives a neighbour with cosine s the weight exp(s / temperature),
        as DINO does. A callable takes and returns distances (n_queries, n_neighbors).
    metric : {"euclidean", "cosine"}
        With ``cosine``, a row of zeros has distance 1 to every other row.
    temperature : float
        Of ``weights="softmax"``, above 0.
    recall_target : float
        1: exact search. Below 1: approximate search. ``fit`` clusters the training rows into cells, and measures in how
        many cells a query must search to find this share of its ``n_neighbors`` nearest rows, on average over training
        rows. Queries unlike the training rows are compared with all of them.
    n_jobs : int, optional
        Threads of FAISS; None: all.

    Attributes
    ----------
    rows_ : float32 array (n_samples, n_features)
        The training rows; of unit length with ``cosine``.
    values_ : float64 array (n_samples,) or (n_samples, n_outputs)
    probes_ : int
        Number of cells in which a query searches; 0 if the search is exact.
    centroids_ : float32 array (n_cells, n_features)
        Only if ``recall_target`` is below 1.
    cells_ : int32 array (n_samples,)
        The cell of each training row; only if ``recall_target`` is below 1.
    candidates_ : int
        Number of rows per neighbour that are ranked exactly; only if ``recall_target`` is below 1.
    gate_ : float
        Cost of the nearest centroid above which all rows are compared; only if ``recall_target`` is below 1.
    n_samples_fit_, n_features_in_ : int

    References
    ----------
    See `FaissKNNClassifier`.

    Examples
    --------
    >>> from embedpipe.estimators import FaissKNNRegressor
    >>> FaissKNNRegressor(n_neighbors=2).fit([[0.0], [1.0], [9.0]], [1.0, 2.0, 7.0]).predict([[0.4]])
    array([1.5])
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Store the training rows.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : float array (n_samples,) or (n_samples, n_outputs)

        Raises
        ------
        ValueError
            If a parameter is out of range, or values of ``X`` are beyond float32.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True)
        self._fit_rows(X)
        self.values_ = np.asarray(y, np.float64)
        return self

    def predict(self, X: Any) -> Floats:
        """Return the weighted means of the neighbours' values.

        Parameters
        ----------
        X : float array (n_queries, n_features)

        Returns
        -------
        float64 array (n_queries,) or (n_queries, n_outputs)
        """
        weights, positions = self._votes(X)
        mean: Floats = np.einsum("qk,qk...->q...", weights, self.values_[positions])
        return mean

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
