"""Probabilities of rows by heads that were not fitted on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Advance, uncounted
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.registry import make_estimator
from embedpipe.splits.splits import Splits

Rows = npt.NDArray[np.int64]


def held_out_probabilities(
    X: npt.NDArray[np.float32],
    rows: Rows,
    y: npt.NDArray[Any],
    splits: Splits,
    head: str,
    advance: Advance = uncounted,
) -> npt.NDArray[np.float64]:
    """Return the probabilities of the sorted classes of ``y``, (n_labelled, n_classes); NaN for rows of no test fold.

    Parameters
    ----------
    X : float32 array (n_rows, dim)
    rows : int64 array (n_labelled,)
        The rows of ``X`` that ``y`` and ``splits`` are about.
    y : array (n_labelled,)
    splits : Splits
    head : str
        Its name.
    advance : callable, optional
        Is called with 1 after each fold.
    """
    classes = np.unique(y)
    probabilities = np.full((len(y), len(classes)), np.nan)
    for resample in splits.resamples:
        _, estimator = make_estimator(head, "classification", len(resample.train))
        fitted = fit_on(estimator, X[rows[resample.train]], y[resample.train])
        probabilities[resample.test] = 0  # of classes that the fold did not learn
        columns = np.searchsorted(classes, fitted.classes_)
        probabilities[np.ix_(resample.test, columns)] = fitted.predict_proba(X[rows[resample.test]])
        advance(1)
    return probabilities
