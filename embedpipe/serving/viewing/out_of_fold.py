"""Predictions of the rows that a head was fitted on, by heads of the same kind that were not fitted on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import fixed_options
from embedpipe.errors import TrainingDataError
from embedpipe.estimators.wrappers.base import clone_with_chosen_params, fit_on
from embedpipe.splits.make import make_splits

#: Number of folds, and of rows above which fitting as many heads again takes too long for a page.
FOLDS, MOST_ROWS = 5, 20_000


class OutOfFold(NamedTuple):
    """Predictions of rows by heads that did not see them.

    ``rows`` are positions, int64 (m,), in the rows that were given; those of classes that are too small for the folds
    are missing. ``predicted`` are their classes, and ``shares`` the probabilities of all classes of the head, float64
    (m, n_classes), or None if it has none.
    """

    rows: npt.NDArray[np.int64]
    predicted: npt.NDArray[Any]
    shares: npt.NDArray[np.float64] | None


def predict_out_of_fold(fitted: Any, X: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> OutOfFold:
    """Predict rows in folds, with the parameters that a fitted classifier has chosen; equal vectors share a fold.

    Parameters
    ----------
    fitted : estimator
    X : float32 array (n_rows, dim)
    y : array (n_rows,)
        Classes.

    Raises
    ------
    TrainingDataError
        If fewer than two classes are large enough for the folds.
    """
    if len(y) > MOST_ROWS:
        raise TrainingDataError(f"{len(y):,} items are too many to be predicted in folds for a page")
    ids = [str(row) for row in range(len(y))]
    options: dict[str, Any] = {"vectors": X, "near_duplicates": "copies", "folds": FOLDS, "repeats": 1}
    with fixed_options("folds", "near_duplicates"):
        splits = make_splits(ids, y, task="classification", **options)
    probable = hasattr(fitted, "predict_proba")
    predicted = np.empty(len(y), np.asarray(fitted.classes_).dtype)
    shares = np.zeros((len(y), len(fitted.classes_)))
    seen = np.zeros(len(y), bool)
    for resample in splits.resamples:
        train, test = resample.train, resample.test
        model = fit_on(clone_with_chosen_params(fitted), X[train], y[train])
        predicted[test], seen[test] = model.predict(X[test]), True
        if probable:
            columns = np.searchsorted(fitted.classes_, model.classes_)
            shares[np.ix_(test, columns)] = model.predict_proba(X[test])
    rows = np.flatnonzero(seen)
    return OutOfFold(rows, predicted[rows], shares[rows] if probable else None)
