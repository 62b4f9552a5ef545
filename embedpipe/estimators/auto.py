"""`AutoClassifier` and `AutoRegressor`, the head ``auto``: cross-validation over layers, normalisations, estimators.

Every layer is tried with the first estimator of `auto_candidates`, then the other estimators on the best
layer (`_Auto._try_all`). `_Auto._best` compares the trials.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from embedpipe._utils.blas_threads import SMALL, one_blas_thread, with_jobs
from embedpipe._utils.config import usable_cores
from embedpipe._utils.public import public_in
from embedpipe.estimators.auto_candidates import CLASSIFIERS, NORMALISATIONS, REGRESSORS
from embedpipe.estimators.linear.base import FLOATS, check_weights
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.targets import check_no_label_missing
from embedpipe.estimators.wrappers.base import fit_on, takes_weights
from embedpipe.estimators.wrappers.calibration import (
    TemperatureCalibratedClassifier,
    logits_of,
    loss_at_best_temperature,
)
from embedpipe.splits.inner import Folds, Split, inner_splits


class _Auto(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of both: tries the candidates on inner splits, and fits the best one on all rows."""

    _heads: dict[str, tuple[Callable[[int], Any], tuple[str, ...]]]

    def __init__(self, layers: Sequence[tuple[str, int]] | None = None, *, cv: Folds = None) -> None:
        self.layers = layers
        self.cv = cv

    def _fit(self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Floats | None, classes: bool) -> None:
        slices = self._layers(X.shape[1])
        labels = np.unique(y, return_inverse=True)[1] if classes else y
        splits = inner_splits(self.cv, labels, classes, weights=weights)
        self.trials_: list[dict[str, Any]] = []
        self._row_errors: list[Floats] = []
        if splits:
            self._try_all(X, y, weights, splits, slices)
            best = self._best()
        else:
            best = {"layer": next(iter(slices)), "normalisation": "none", "head": next(iter(self._heads))}
        if best.get("error"):
            raise ValueError(f"no estimator could be fitted: {best['error']}")
        self.layer_, self.normalisation_, self.head_ = best["layer"], best["normalisation"], best["head"]
        part = slices[self.layer_]
        self.start_, self.stop_ = part.start, part.stop
        del self._row_errors
        # Calibration fits on the training rows of these splits too.
        smallest = min([len(train) for train, _ in splits], default=max(1, len(X) // 2))
        estimator = self._wrap(self._make(self.normalisation_, self.head_, smallest))
        self.estimator_ = fit_on(estimator, X[:, part], y, weights, splits or None)

    def _layers(self, dim: int) -> dict[str, slice]:
        """Return the columns of each layer, and last those of all layers joined."""
        layers = [("all", dim)] if self.layers is None else list(self.layers)
        if sum(width for _, width in layers) != dim or not all(width > 0 for _, width in layers):
            raise ValueError(
                f"the widths of layers must be positive and sum to the {dim} columns of X, got {self.layers!r}"
            )
        ends = np.cumsum([width for _, width in layers]).tolist()
        slices = {name: slice(end - width, end) for (name, width), end in zip(layers, ends, strict=True)}
        return slices | ({"+".join(slices): slice(0, dim)} if len(slices) > 1 else {})

    def _try_all(
        self,
        X: npt.NDArray[Any],
        y: npt.NDArray[Any],
        weights: Floats | None,
        splits: list[Split],
        slices: Mapping[str, slice],
    ) -> None:
        """Choose the layer by the first estimator, then try the other estimators on that layer."""
        first, *others = (
            name for name, (make, _) in self._heads.items() if weights is None or takes_weights(make(len(X)))
        )
        for layer, part in slices.items():
            self._try(X[:, part], y, weights, splits, layer, [first])
        layer = self._best()["layer"]
        self._try(X[:, slices[layer]], y, weights, splits, layer, others)

    def _try(
        self,
        X: npt.NDArray[Any],
        y: npt.NDArray[Any],
        weights: Floats | None,
        splits: list[Split],
        layer: str,
        heads: Sequence[str],
    ) -> None:
        rows = min(len(train) for train, _ in splits)
        candidates = [(normalisation, head) for head in heads for normalisation in self._heads[head][1]]
        # In parallel only while the copies of the rows are small.
        cores = usable_cores() if X.nbytes < SMALL else 1

        def held_out(normalisation: str, head: str, split: Split) -> tuple[Any, float, str]:
            train, test = split
            start = time.perf_counter()
            estimator = with_jobs(self._make(normalisation, head, rows), 1 if cores > 1 else None)
            try:
                train_weights = None if weights is None else weights[train]
                fit_on(estimator, X[train], y[train], train_weights, _inner_folds(split, splits))
                return self._predict_held_out(estimator, X[test]), time.perf_counter() - start, ""
            except Exception as error:  # other candidates may still succeed
                return None, time.perf_counter() - start, f"{type(error).__name__}: {error}"

        with one_blas_thread(cores > 1):
            results = Parallel(cores, prefer="threads")(
                delayed(held_out)(normalisation, head, split) for normalisation, head in candidates for split in splits
            )
        held = np.concatenate([test for _, test in splits])
        truth, held_weights = y[held], np.ones(len(held)) if weights is None else weights[held]
        for at, (normalisation, head) in enumerate(candidates):
            predictions, seconds, errors = zip(*results[at * len(splits) : (at + 1) * len(splits)], strict=True)
            error = next(filter(None, errors), "")
            if error:
                row_errors, score, loss = np.full(len(truth), np.inf), -np.inf, np.inf
            else:
                row_errors, score, loss = self._assess(truth, predictions, held_weights)
                row_errors = row_errors * held_weights / held_weights.mean()
            self._row_errors.append(row_errors)
            trial = {"layer": layer, "normalisation": normalisation, "head": head, "score": score, "loss": loss}
            self.trials_.append({**trial, "seconds": sum(seconds), "error": error})

    def _best(self) -> dict[str, Any]:
        """Return the trial of least loss among those whose score is within one standard error of the best score."""
        first = int(np.argmax([trial["score"] for trial in self.trials_]))
        if self.trials_[first]["error"]:
            return self.trials_[first]
        equivalent = []
        for trial, row_errors in zip(self.trials_, self._row_errors, strict=True):
            if not trial["error"]:
                excess = row_errors - self._row_errors[first]
                if excess.mean() <= excess.std() / np.sqrt(len(excess)):  # both are 0 for the best itself
                    equivalent.append(trial)
        return min(equivalent, key=lambda trial: float(trial["loss"]))  # the first one of ties

    def _make(self, normalisation: str, head: str, rows: int) -> Any:
        steps, estimator = NORMALISATIONS[normalisation](), self._heads[head][0](rows)
        return make_pipeline(*steps, estimator) if steps else estimator

    @abstractmethod
    def _wrap(self, estimator: Any) -> Any:
        """Return the estimator to fit on all rows for the chosen one."""

    @abstractmethod
    def _predict_held_out(self, estimator: Any, X: npt.NDArray[Any]) -> Any:
        """Return the predictions of a fitted estimator for held-out rows, as `_assess` takes them."""

    @abstractmethod
    def _assess(self, y: npt.NDArray[Any], predictions: Sequence[Any], weights: Floats) -> tuple[Floats, float, float]:
        """Return the error of each held-out row, the score (higher is better), and the loss."""

    def _part(self, X: Any) -> npt.NDArray[Any]:
        check_is_fitted(self, "estimator_")
        rows: npt.NDArray[Any] = validate_data(self, X, reset=False, dtype=FLOATS)
        return rows[:, self.start_ : self.stop_]

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the predictions of the chosen estimator.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        array (n_samples,)
        """
        part = self._part(X)
        predicted: npt.NDArray[Any] = self.estimator_.predict(part)
        return predicted


@public_in("embedpipe.estimators")
class AutoClassifier(ClassifierMixin, _Auto):  # type: ignore[misc]
    """Choose layer, normalisation and estimator by cross-validated accuracy; calibrate the result.

    Layers, each alone and all joined, are compared by logistic regression; the other estimators are tried on the best
    layer. Among the trials within one standard error of the best accuracy, the one with the least log-loss at its best
    temperature is chosen: on a few hundred rows log-loss distinguishes more than accuracy.

    The scores in ``trials_`` are optimistic for the chosen trial: measure the estimator on rows that it was not fitted
    on, as `embedpipe.fit` does.

    Parameters
    ----------
    layers : sequence of (name, width), optional
        The layers that the columns of ``X`` hold, in order. None: one layer.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which to choose; by default 3 folds, or one held-out fifth of more than 20,000 rows.

    Attributes
    ----------
    layer_, normalisation_, head_ : str
        The chosen ones.
    start_, stop_ : int
        The columns of ``X`` of the chosen layer.
    estimator_ : TemperatureCalibratedClassifier
        Fitted on the columns of the chosen layer, on all rows.
    trials_ : list of dict
        All trials in order: ``layer``, ``normalisation``, ``head``, the ``score`` on held-out rows (accuracy), the
        ``loss`` (log-loss at the best temperature), the ``seconds`` of its fits, and the ``error`` if a fit failed.
    classes_ : array (n_classes,)
    n_features_in_ : int

    References
    ----------
    Breiman, Friedman, Olshen, Stone: Classification and regression trees, 1984 (the one-standard-error rule).

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import AutoClassifier
    >>> X = np.random.default_rng(0).standard_normal((60, 6))
    >>> y = np.where(X[:, 4] > 0, "cat", "dog")
    >>> model = AutoClassifier([("layer3", 2), ("layer4", 4)]).fit(X, y)
    >>> model.layer_
    'layer4'
    >>> len(model.trials_)
    15
    """

    _heads = CLASSIFIERS

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose, and fit the chosen estimator on all rows.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional
            Estimators without sample weights are then not tried.

        Raises
        ------
        ValueError
            If there are fewer than two classes, ``layers`` do not cover ``X``, or no estimator can be fitted.
        """
        check_no_label_missing(y)
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have two classes or more, got one class: {self.classes_.tolist()[0]!r}")
        weights = check_weights(sample_weight, X)
        if weights is not None and len(np.unique(y[weights > 0])) < 2:
            raise ValueError("sample_weight must be above 0 for rows of two classes or more, got one class")
        self._fit(X, y, weights, classes=True)
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities.

        Parameters
        ----------
        X : float array (n_samples, n_features)

        Returns
        -------
        float64 array (n_samples, n_classes)
        """
        part = self._part(X)
        probabilities: Floats = self.estimator_.predict_proba(part)
        return probabilities

    def _wrap(self, estimator: Any) -> Any:
        return TemperatureCalibratedClassifier(estimator)

    def _predict_held_out(self, estimator: Any, X: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats]:
        return estimator.predict(X), logits_of(estimator, X, self.classes_)

    def _assess(self, y: npt.NDArray[Any], predictions: Sequence[Any], weights: Floats) -> tuple[Floats, float, float]:
        predicted, logits = (np.concatenate(parts) for parts in zip(*predictions, strict=True))
        row_errors = (predicted != y).astype(np.float64)
        loss = loss_at_best_temperature(logits, np.searchsorted(self.classes_, y), weights)
        return row_errors, float(1 - np.average(row_errors, weights=weights)), loss


@public_in("embedpipe.estimators")
class AutoRegressor(RegressorMixin, _Auto):  # type: ignore[misc]
    """Choose layer, normalisation and estimator by cross-validated R2.

    Layers, each alone and all joined, are compared by ridge regression; the other estimators are tried on the best
    layer. Among the trials within one standard error of the best squared error, the one with the least is chosen.

    Parameters
    ----------
    layers : sequence of (name, width), optional
        The layers that the columns of ``X`` hold, in order. None: one layer.
    cv : int, iterable of (train rows, held-out rows), or None
        Splits on which to choose; by default 3 folds, or one held-out fifth of more than 20,000 rows.

    Attributes
    ----------
    layer_, normalisation_, head_ : str
        The chosen ones.
    start_, stop_ : int
        The columns of ``X`` of the chosen layer.
    estimator_ : regressor or Pipeline
        Fitted on the columns of the chosen layer, on all rows.
    trials_ : list of dict
        All trials in order: ``layer``, ``normalisation``, ``head``, the ``score`` on held-out rows (R2), the
        ``loss`` (squared error), the ``seconds`` of its fits, and the ``error`` if a fit failed.
    n_features_in_ : int

    References
    ----------
    See `AutoClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.estimators import AutoRegressor
    >>> X = np.random.default_rng(0).standard_normal((60, 6))
    >>> model = AutoRegressor([("layer3", 2), ("layer4", 4)]).fit(X, 3 * X[:, 4] + 1)
    >>> model.layer_, model.head_
    ('layer4', 'ridge')
    """

    _heads = REGRESSORS

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose, and fit the chosen estimator on all rows.

        Parameters
        ----------
        X : float array (n_samples, n_features)
        y : array (n_samples,)
        sample_weight : float array (n_samples,), optional
            Estimators without sample weights are then not tried.

        Raises
        ------
        ValueError
            If ``layers`` do not cover ``X``, or no estimator can be fitted.
        """
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=True)
        self._fit(X, np.asarray(y, np.float64), check_weights(sample_weight, X), classes=False)
        return self

    def _wrap(self, estimator: Any) -> Any:
        return estimator

    def _predict_held_out(self, estimator: Any, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(estimator.predict(X), np.float64)

    def _assess(self, y: npt.NDArray[Any], predictions: Sequence[Any], weights: Floats) -> tuple[Floats, float, float]:
        predicted = np.concatenate(predictions)
        row_errors = (predicted - y) ** 2
        score = float(r2_score(y, predicted, sample_weight=weights))
        return row_errors, score, float(np.average(row_errors, weights=weights))


def _inner_folds(split: Split, splits: Sequence[Split]) -> list[Split] | None:
    """Return splits of the training rows of ``split`` by the held-out rows of the others, which keeps groups whole.

    Returns None if ``splits`` are not folds: an estimator then makes its own splits.
    """
    train, _ = split
    others = [np.isin(train, test) for _, test in splits if not np.isin(test, split[1]).any()]
    if len(others) < 2 or not all(other.any() and not other.all() for other in others):
        return None
    return [(np.flatnonzero(~other), np.flatnonzero(other)) for other in others]
