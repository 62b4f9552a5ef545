"""`AutoClassifier` and `AutoRegressor`: layer, normalisation and head, picked by cross-validation on training rows."""

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
from sklearn.preprocessing import Normalizer
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from embedpipe._utils.blas_threads import SMALL, one_blas_thread, with_jobs
from embedpipe._utils.config import usable_cores
from embedpipe._utils.public import public_in
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.base import FLOATS
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.scaler import VarianceFloorScaler
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.estimators.wrappers.base import fit_on, takes_weights
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier, logits_of, tempered_loss
from embedpipe.splits.inner import Folds, Split, inner_splits

#: Normalisation -> the steps that do it. ``unit`` gives every vector length one.
NORMALISATIONS: dict[str, Callable[[], list[Any]]] = {
    "none": list,
    "unit": lambda: [Normalizer()],
    "standard": lambda: [VarianceFloorScaler()],
}


def _knn(kind: type, k: int) -> Callable[[int], Any]:
    return lambda rows: kind(min(k, rows), weights="softmax", metric="cosine")


#: Head -> how it is made for at least so many rows, and the normalisations that make a difference to it. The first is
#: what layers are compared with: it is quick, and sees what all linear heads can use.
CLASSIFIERS: dict[str, tuple[Callable[[int], Any], tuple[str, ...]]] = {
    "logreg": (lambda rows: TunedLogisticRegression(), ("none", "unit")),
    "lda": (lambda rows: ShrunkenLDA(), ("none", "unit", "standard")),
    "ridge": (lambda rows: TunedRidgeClassifier(), ("none", "unit")),
    "knn 5": (_knn(FaissKNNClassifier, 5), ("none", "standard")),
    "knn 20": (_knn(FaissKNNClassifier, 20), ("none", "standard")),
}
REGRESSORS: dict[str, tuple[Callable[[int], Any], tuple[str, ...]]] = {
    "ridge": (lambda rows: TunedRidge(), ("none", "unit")),
    "knn 5": (_knn(FaissKNNRegressor, 5), ("none", "standard")),
    "knn 20": (_knn(FaissKNNRegressor, 20), ("none", "standard")),
}


class _Auto(BaseEstimator, ABC):  # type: ignore[misc]
    """Tries, picks, and fits what was picked on all rows."""

    _heads: dict[str, tuple[Callable[[int], Any], tuple[str, ...]]]

    def __init__(self, layers: Sequence[tuple[str, int]] | None = None, *, cv: Folds = None) -> None:
        self.layers = layers
        self.cv = cv

    def _fit(self, X: npt.NDArray[Any], y: npt.NDArray[Any], weights: Floats | None, classes: bool) -> None:
        slices = self._layers(X.shape[1])
        splits = inner_splits(self.cv, np.unique(y, return_inverse=True)[1] if classes else y, classes)
        self.trials_: list[dict[str, Any]] = []
        self._wrong: list[Floats] = []
        if splits:
            self._try_all(X, y, weights, splits, slices)
            best = self._best()
        else:
            best = {"layer": next(iter(slices)), "normalisation": "none", "head": next(iter(self._heads))}
        if best.get("error"):
            raise ValueError(f"none of the heads can learn from these rows: {best['error']}")
        self.layer_, self.normalisation_, self.head_ = best["layer"], best["normalisation"], best["head"]
        part = slices[self.layer_]
        self.start_, self.stop_ = part.start, part.stop
        del self._wrong
        # Calibration fits on the training rows of these splits, too.
        smallest = min([len(train) for train, _ in splits], default=max(1, len(X) // 2))
        estimator = self._final(self._make(self.normalisation_, self.head_, smallest))
        self.estimator_ = fit_on(estimator, X[:, part], y, weights, splits or None)

    def _layers(self, dim: int) -> dict[str, slice]:
        """Return where each layer's values are among the columns, and all together last."""
        given = [("all", dim)] if self.layers is None else list(self.layers)
        if sum(width for _, width in given) != dim or not all(width > 0 for _, width in given):
            raise ValueError(f"layers={self.layers!r} must cover X, which has {dim} columns")
        ends = np.cumsum([width for _, width in given]).tolist()
        slices = {name: slice(end - width, end) for (name, width), end in zip(given, ends, strict=True)}
        return slices | ({"+".join(slices): slice(0, dim)} if len(slices) > 1 else {})

    def _try_all(
        self,
        X: npt.NDArray[Any],
        y: npt.NDArray[Any],
        weights: Floats | None,
        splits: list[Split],
        slices: Mapping[str, slice],
    ) -> None:
        """Pick the layers by the first head, then try the other heads on them."""
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
        tried = [(normalisation, head) for head in heads for normalisation in self._heads[head][1]]
        # Beside each other while their copies of the rows stay small.
        cores = usable_cores() if X.nbytes < SMALL else 1

        def held_out(normalisation: str, head: str, split: Split) -> tuple[Any, float, str]:
            train, test = split
            start = time.perf_counter()
            estimator = with_jobs(self._make(normalisation, head, rows), 1 if cores > 1 else None)
            try:
                own = None if weights is None else weights[train]
                fit_on(estimator, X[train], y[train], own, _inside(split, splits))
                return self._said(estimator, X[test]), time.perf_counter() - start, ""
            except Exception as error:  # of any head: the others may do
                return None, time.perf_counter() - start, f"{type(error).__name__}: {error}"

        with one_blas_thread(cores > 1):
            found = Parallel(cores, prefer="threads")(
                delayed(held_out)(normalisation, head, split) for normalisation, head in tried for split in splits
            )
        held = np.concatenate([test for _, test in splits])
        truth, counted = y[held], np.ones(len(held)) if weights is None else weights[held]
        for at, (normalisation, head) in enumerate(tried):
            said, seconds, errors = zip(*found[at * len(splits) : (at + 1) * len(splits)], strict=True)
            error = next(filter(None, errors), "")
            wrong, score, loss = (
                (np.full(len(truth), np.inf), -np.inf, np.inf) if error else self._judge(truth, said, counted)
            )
            self._wrong.append(wrong if error else wrong * counted / counted.mean())
            trial = {"layer": layer, "normalisation": normalisation, "head": head, "score": score, "loss": loss}
            self.trials_.append({**trial, "seconds": sum(seconds), "error": error})

    def _best(self) -> dict[str, Any]:
        """Return, of the trials that are not told apart from the best (by one standard error), that of least loss."""
        first = int(np.argmax([trial["score"] for trial in self.trials_]))
        if self.trials_[first]["error"]:
            return self.trials_[first]
        near = []
        for trial, wrong in zip(self.trials_, self._wrong, strict=True):
            if not trial["error"]:
                apart = wrong - self._wrong[first]
                if apart.mean() <= apart.std() / np.sqrt(len(apart)):  # of the best itself, both are 0
                    near.append(trial)
        return min(near, key=lambda trial: float(trial["loss"]))  # of equals the first

    def _make(self, normalisation: str, head: str, rows: int) -> Any:
        steps, made = NORMALISATIONS[normalisation](), self._heads[head][0](rows)
        return make_pipeline(*steps, made) if steps else made

    @abstractmethod
    def _final(self, estimator: Any) -> Any:
        """Return what is fitted in the end for what was picked."""

    @abstractmethod
    def _said(self, estimator: Any, X: npt.NDArray[Any]) -> Any:
        """Return what a fitted head says of held-out rows."""

    @abstractmethod
    def _judge(self, y: npt.NDArray[Any], said: Sequence[Any], weights: Floats) -> tuple[Floats, float, float]:
        """Return how wrong each held-out row is, the score (more is better), and a loss that tells heads apart."""

    def _part(self, X: Any) -> npt.NDArray[Any]:
        check_is_fitted(self, "estimator_")
        rows: npt.NDArray[Any] = validate_data(self, X, reset=False, dtype=FLOATS)
        return rows[:, self.start_ : self.stop_]

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return what was picked predicts, (n_samples,)."""
        part = self._part(X)
        predicted: npt.NDArray[Any] = self.estimator_.predict(part)
        return predicted


@public_in("embedpipe.estimators")
class AutoClassifier(ClassifierMixin, _Auto):  # type: ignore[misc]
    """Picks layer, normalisation and head by accuracy on held-out training rows, then fits and calibrates it.

    Layers, each alone and all joined, are compared by logistic regression; on the best one the other heads are tried.
    Of those whose accuracy is within one standard error of the best, log-loss at the best temperature decides: a few
    hundred rows tell more by it.
    A head's own choices (C, penalty) are made inside that. What it says of itself is therefore too kind: measure it on
    rows that it was not given, as `embedpipe.fit` does.

    Parameters
    ----------
    layers : sequence of (name, width), optional
        What the columns of ``X`` are, in order; one layer where None.
    cv : int, iterable of (train rows, held-out rows), or None
        On which rows to pick; by default 3 folds, or one held-out fifth of more than 20,000 rows.

    Attributes
    ----------
    layer_, normalisation_, head_ : str
        What was picked.
    start_, stop_ : int
        Columns of ``X`` that the layer has.
    estimator_ : TemperatureCalibratedClassifier
        Fitted on those columns of all rows.
    trials_ : list of dict
        Everything that was tried, in order: ``layer``, ``normalisation``, ``head``, its ``score`` on held-out rows
        (accuracy, or R2) and ``loss`` (log-loss at the best temperature, or squared error), the ``seconds`` of its
        fits together, and why it could not be fitted in ``error``.
    classes_ : array (n_classes,)
    """

    _heads = CLASSIFIERS

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Pick and fit: ``X`` (n_samples, n_features), ``y`` (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=FLOATS)
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_[0]!r}: a classifier needs at least two")
        weights = _weights(sample_weight, X)
        if weights is not None and len(np.unique(y[weights > 0])) < 2:
            raise ValueError("all weight is on one class: give rows of two classes at least a weight above 0")
        self._fit(X, y, weights, classes=True)
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Return calibrated probabilities, float64 (n_samples, n_classes)."""
        part = self._part(X)
        shares: Floats = self.estimator_.predict_proba(part)
        return shares

    def _final(self, estimator: Any) -> Any:
        return TemperatureCalibratedClassifier(estimator)

    def _said(self, estimator: Any, X: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats]:
        return estimator.predict(X), logits_of(estimator, X, self.classes_)

    def _judge(self, y: npt.NDArray[Any], said: Sequence[Any], weights: Floats) -> tuple[Floats, float, float]:
        predicted, logits = (np.concatenate(parts) for parts in zip(*said, strict=True))
        wrong = (predicted != y).astype(np.float64)
        loss = tempered_loss(logits, np.searchsorted(self.classes_, y), weights)
        return wrong, float(1 - np.average(wrong, weights=weights)), loss


@public_in("embedpipe.estimators")
class AutoRegressor(RegressorMixin, _Auto):  # type: ignore[misc]
    """Picks layer, normalisation and head by R2 on held-out training rows, then fits it.

    Parameters and attributes are those of `AutoClassifier`; layers are compared by ridge regression.
    """

    _heads = REGRESSORS

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Pick and fit: ``X`` (n_samples, n_features), ``y`` (n_samples,)."""
        X, y = validate_data(self, X, y, dtype=FLOATS, y_numeric=True)
        self._fit(X, np.asarray(y, np.float64), _weights(sample_weight, X), classes=False)
        return self

    def _final(self, estimator: Any) -> Any:
        return estimator

    def _said(self, estimator: Any, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.asarray(estimator.predict(X), np.float64)

    def _judge(self, y: npt.NDArray[Any], said: Sequence[Any], weights: Floats) -> tuple[Floats, float, float]:
        predicted = np.concatenate(said)
        wrong = (predicted - y) ** 2
        score = float(r2_score(y, predicted, sample_weight=weights))
        return wrong, score, float(np.average(wrong, weights=weights))


def _inside(split: Split, splits: Sequence[Split]) -> list[Split] | None:
    """Return the other splits' held-out rows as splits of one's training rows, so that what belongs together stays so.

    None where these are not folds: a head then cuts the training rows by itself.
    """
    train, _ = split
    others = [np.isin(train, test) for _, test in splits if not np.isin(test, split[1]).any()]
    if len(others) < 2 or not all(other.any() and not other.all() for other in others):
        return None
    return [(np.flatnonzero(~other), np.flatnonzero(other)) for other in others]


def _weights(sample_weight: Any, X: npt.NDArray[Any]) -> Floats | None:
    if sample_weight is None:
        return None
    weights: Floats = _check_sample_weight(sample_weight, X, dtype=np.float64)
    return weights
