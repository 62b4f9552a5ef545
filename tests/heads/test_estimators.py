"""Our estimators keep scikit-learn's contract, all of its checks."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedpipe.heads import (
    CentroidClassifier,
    FaissKNNClassifier,
    FaissKNNRegressor,
    TunedLinearSVC,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
)


# No expected failures: `KNeighborsClassifier` and `KNeighborsRegressor` have none either.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        FaissKNNClassifier(),
        FaissKNNClassifier(weights="distance"),
        FaissKNNClassifier(metric="cosine", weights="softmax"),
        FaissKNNRegressor(),
        FaissKNNRegressor(metric="cosine", weights="softmax"),
        CentroidClassifier(),
        TunedRidgeClassifier(),
        TunedRidge(),
        TunedLogisticRegression(),
        TunedLinearSVC(),
    ]
)
def test_keeps_scikit_learns_contract(estimator: Any, check: Any) -> None:
    check(estimator)
