"""k nearest neighbours as scikit-learn estimators, on FAISS."""

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
from embedpipe.neighbours import Cells, make_cells, near_rows, nearest_rows, normalised
from embedpipe.neighbours.exact import METRICS, Metric

Floats = npt.NDArray[np.float64]
WEIGHTS = ("uniform", "distance", "softmax")


class _FaissNeighbours(BaseEstimator):  # type: ignore[misc]
    """Parameters, training rows and neighbours: what classifier and regressor share."""

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
            raise ValueError(f"metric={self.metric!r} is not one of {', '.join(METRICS)}")
        if not callable(self.weights) and self.weights not in WEIGHTS:
            raise ValueError(f"weights={self.weights!r} is neither callable nor one of {', '.join(WEIGHTS)}")
        if self.weights == "softmax" and (self.metric != "cosine" or not self.temperature > 0):
            raise ValueError("weights='softmax' votes by cosine: it needs metric='cosine' and a temperature above 0")
        k = self.n_neighbors
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"n_neighbors={self.n_neighbors!r} must be a whole number of at least 1")
        if not 0 < self.recall_target <= 1:
            raise ValueError(f"recall_target={self.recall_target!r} must be above 0, and 1 (exact) at most")
        if self.n_jobs == 0:
            raise ValueError("n_jobs=0 leaves no thread: give None, -1 or how many")
        self.rows_ = self._prepare(X)
        self.n_samples_fit_ = len(X)
        self.probes_ = 0
        if self.recall_target < 1:
            cells = make_cells(self.rows_, k, self.metric, self.recall_target, self.n_jobs)
            self.centroids_, self.cells_, self.probes_ = cells.centroids, cells.cell_of, cells.probes

    def _prepare(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        if self.metric == "cosine":
            return normalised(X)
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(X, np.float32)
        if not np.isfinite(rows).all():
            raise ValueError("X holds values that float32, which FAISS computes in, cannot: scale it first")
        return rows

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> npt.NDArray[np.int64] | tuple[Floats, npt.NDArray[np.int64]]:
        """Find the nearest training rows; of equally near ones the first.

        Parameters
        ----------
        X : array (n_queries, n_features), optional
            The training rows themselves where None, none of which is then its own neighbour.
        n_neighbors : int, optional
            As given to the constructor where None.
        return_distance : bool

        Returns
        -------
        distances : float64 array (n_queries, n_neighbors), only with ``return_distance``
            Euclidean, or 1 - cosine; nearest first.
        positions : int64 array (n_queries, n_neighbors)
            Row numbers of the training data.
        """
        check_is_fitted(self, "rows_")
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        own = X is None
        if not 1 <= k <= self.n_samples_fit_ - own:
            raise ValueError(
                f"n_neighbors={k}, but there are {self.n_samples_fit_} training rows"
                f"{', each without itself' if own else ''}: ask for fewer"
            )
        if own:
            distances, positions = self._nearest(self.rows_, k + 1)
            # A copy of a row may stand before it; without the row itself the others keep their order.
            mine = positions == np.arange(len(positions))[:, None]
            mine[~mine.any(axis=1), -1] = True
            distances, positions = (block[~mine].reshape(-1, k) for block in (distances, positions))
        else:
            distances, positions = self._nearest(self._prepare(self._check(X)), k)
        return (distances, positions) if return_distance else positions

    def _check(self, X: Any) -> npt.NDArray[Any]:
        checked: npt.NDArray[Any] = validate_data(self, X, reset=False, dtype=FLOATS)
        return checked

    def _nearest(self, queries: npt.NDArray[np.float32], k: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        if self.probes_:
            cells = Cells(self.centroids_, self.cells_, self.probes_)
            scores, positions = near_rows(queries, self.rows_, cells, k, self.metric, self.n_jobs)
        else:
            scores, positions = nearest_rows(queries, self.rows_, k, self.metric, self.n_jobs)
        return (1 - scores if self.metric == "cosine" else scores), positions

    def _votes(self, X: Any) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return weights, which sum to 1, and training rows of each query's neighbours, (n_queries, n_neighbors)."""
        distances, positions = self.kneighbors(X)
        if callable(self.weights):
            weights = np.asarray(self.weights(distances), np.float64)
        elif self.weights == "softmax":
            weights = np.exp((distances[:, :1] - distances) / self.temperature)
        elif self.weights == "distance":
            same = distances == 0
            with np.errstate(divide="ignore"):
                weights = np.where(same.any(axis=1, keepdims=True), same, 1 / distances)
        else:
            weights = np.ones_like(distances)
        total = weights.sum(axis=1, keepdims=True)
        return np.divide(weights, total, out=np.full_like(weights, 1 / weights.shape[1]), where=total != 0), positions


@public_in("embedpipe.estimators")
class FaissKNNClassifier(ClassifierMixin, _FaissNeighbours):  # type: ignore[misc]
    """Classify by a vote of the k nearest training rows, exact or approximate, on FAISS.

    Takes the place of `sklearn.neighbors.KNeighborsClassifier` for dense data, with the same defaults. Rows are
    kept as float32; distances and votes are float64, and of equally near rows the first counts.

    Parameters
    ----------
    n_neighbors : int
    weights : {"uniform", "distance", "softmax"} or callable
        ``softmax`` gives a neighbour of cosine s the weight exp(s / temperature), as DINO does (Caron et al.,
        ICCV 2021, section 4.1; Wu et al., CVPR 2018, section 3.4). A callable takes and returns (n_queries, k).
    metric : {"euclidean", "cosine"}
        By cosine, a row of zeros has distance 1 from every other.
    temperature : float
        Of ``weights="softmax"``.
    recall_target : float
        1 is exact. Below, the search is approximate: `fit` puts the training rows into cells and measures into how many
        a query must look to find this share of the ``n_neighbors`` nearest, on average over training rows. Queries that
        are unlike those may find less.
    n_jobs : int, optional
        Threads of FAISS; all where None.

    Attributes
    ----------
    classes_ : array (n_classes,)
    rows_ : float32 array (n_samples, n_features)
        The training rows, of length one for cosine.
    labels_ : int64 array (n_samples,)
        Their classes, as positions in ``classes_``.
    probes_ : int
        Cells that a query looks into; 0 where the search is exact.
    centroids_ : float32 array (n_cells, n_features)
    cells_ : int32 array (n_samples,)
        Each training row's cell; both only where ``recall_target`` is below 1.

    Examples
    --------
    >>> FaissKNNClassifier(n_neighbors=1).fit([[0.0], [1.0]], ["low", "high"]).predict([[0.9]])
    array(['high'], dtype='<U4')
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the training rows: ``X`` (n_samples, n_features), ``y`` (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self._fit_rows(X)
        self.classes_, self.labels_ = np.unique(y, return_inverse=True)
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return each class's share of the vote, float64 (n_queries, n_classes)."""
        weights, positions = self._votes(X)
        shares = np.zeros((len(weights), len(self.classes_)))
        row = np.arange(len(weights))
        for rank in range(weights.shape[1]):
            shares[row, self.labels_[positions[:, rank]]] += weights[:, rank]
        return shares

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class with the largest share, (n_queries,); of equal ones the first in ``classes_``."""
        shares = self.predict_proba(X)
        labels: npt.NDArray[Any] = self.classes_[shares.argmax(axis=1)]
        return labels


@public_in("embedpipe.estimators")
class FaissKNNRegressor(RegressorMixin, _FaissNeighbours):  # type: ignore[misc]
    """Predict the weighted mean of the k nearest training rows' values, on FAISS.

    Takes the place of `sklearn.neighbors.KNeighborsRegressor` for dense data. Parameters are those of
    `FaissKNNClassifier`.

    Attributes
    ----------
    rows_ : float32 array (n_samples, n_features)
    values_ : float64 array (n_samples,) or (n_samples, n_outputs)
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Keep the training rows: ``X`` (n_samples, n_features), ``y`` (n_samples,) or (n_samples, n_outputs)."""
        X, y = validate_data(self, X, y, dtype=FLOATS, multi_output=True, y_numeric=True)
        self._fit_rows(X)
        self.values_ = np.asarray(y, np.float64)
        return self

    def predict(self, X: Any) -> Floats:
        """Return the neighbours' weighted mean, float64 (n_queries,) or (n_queries, n_outputs)."""
        weights, positions = self._votes(X)
        mean: Floats = np.einsum("qk,qk...->q...", weights, self.values_[positions])
        return mean

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
