"""What `AutoClassifier` and `AutoRegressor` try: normalisations and estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklearn.preprocessing import Normalizer

from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.scaler import VarianceFloorScaler

#: Normalisation -> its pipeline steps. ``unit`` scales every vector to length one.
NORMALISATIONS: dict[str, Callable[[], list[Any]]] = {
    "none": list,
    "unit": lambda: [Normalizer()],
    "standard": lambda: [VarianceFloorScaler()],
}


def _knn(kind: type, k: int) -> Callable[[int], Any]:
    return lambda rows: kind(min(k, rows), weights="softmax", metric="cosine")


#: Name -> a function that makes the estimator for at least so many rows, and the normalisations that matter to it. The
#: first one compares the layers: it is fast, and represents all linear estimators.
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
