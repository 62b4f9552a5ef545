"""Sample weights of every estimator that takes them: none below 0, and folds that hold no weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from stored import clusters

from embedpipe.estimators import (
    AutoClassifier,
    CrossConformalRegressor,
    MultiLabelClassifier,
    RejectingClassifier,
    TemperatureCalibratedClassifier,
    TextPriorClassifier,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
)
from embedpipe.splits.inner import inner_splits

X, CLASSES = clusters(60, spread=1.5)
#: Few candidates: the choice itself is tested elsewhere.
LOGREG, RIDGE = TunedLogisticRegression([0.01, 1.0]), TunedRidgeClassifier([1.0, 100.0])


@pytest.mark.parametrize(
    "estimator",
    [
        LOGREG,
        RIDGE,
        TunedRidge([1.0]),
        TextPriorClassifier(np.eye(3, X.shape[1]), [0, 1, 2]),
        TemperatureCalibratedClassifier(RIDGE),
        RejectingClassifier(LOGREG),
        CrossConformalRegressor(TunedRidge([1.0])),
        AutoClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_weights_below_zero_are_refused(estimator: Any) -> None:
    weights = np.ones(60)
    weights[7] = -1
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        estimator.fit(X, CLASSES, weights)


def test_weights_below_zero_are_refused_for_several_labels() -> None:
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        MultiLabelClassifier(TunedRidge([1.0])).fit(X, np.eye(3, dtype=bool)[CLASSES], np.full(60, -1.0))


@pytest.mark.parametrize("side", [0, 1], ids=["training", "held-out"])
@pytest.mark.parametrize(
    "estimator",
    [LOGREG, RIDGE, TextPriorClassifier(np.eye(3, X.shape[1]), [0, 1, 2])],
    ids=lambda estimator: type(estimator).__name__,
)
def test_split_without_weight_is_left_out(estimator: Any, side: int) -> None:
    first, second, third, fourth = np.split(np.arange(60), 4)
    splits, weights = [(first, second), (third, fourth)], np.ones(60)
    weights[splits[1][side]] = 0
    given, fewer = (clone(estimator).set_params(cv=cv).fit(X, CLASSES, weights) for cv in (splits, splits[:1]))
    assert (given.decision_function(X) == fewer.decision_function(X)).all()


def test_held_out_rows_of_a_class_without_weight_are_left_out() -> None:
    y, weights = np.array([0, 1, 2] * 4), np.ones(12)
    weights[[2, 5]] = 0  # class 2 has a weight only in the rows that are held out
    train, held_out = np.arange(6), np.arange(6, 12)
    ((_, measured),) = inner_splits([(train, held_out)], y, classes=True, weights=weights)
    assert y[measured].tolist() == [0, 1, 0, 1]
