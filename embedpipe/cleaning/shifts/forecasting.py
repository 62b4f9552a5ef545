"""The accuracy to expect on rows without labels: average thresholded confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.cleaning.held_out import fold_rows, held_out_probabilities
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.registry import make_estimator

Vectors = npt.NDArray[np.float32]


class Forecaster:
    """Logistic regression, and the confidence above which as many rows lie as it predicts correctly.

    The accuracy to expect on other rows is the share of them whose confidence is above it (average thresholded
    confidence; Garg and others, "Leveraging unlabeled data to predict out-of-distribution performance", ICLR 2022). It
    assumes that the head is as well calibrated on them.

    Parameters
    ----------
    X : float32 array (n_rows, dim)
    y : array (n_rows,)
        Classes.
    seed : int
        Of the folds.

    Attributes
    ----------
    accuracy : float
        On rows of other folds.
    threshold : float
    notes : list of str
        Classes that are too small to be measured.

    Raises
    ------
    TrainingDataError
        If fewer than two classes have rows enough for the folds.
    """

    def __init__(self, X: Vectors, y: npt.NDArray[Any], seed: int) -> None:
        folds = fold_rows(y, None, seed)
        self.notes = folds.notes
        labels = y[folds.rows]
        probabilities = held_out_probabilities(X, folds.rows, labels, folds.splits, "logreg")
        self.accuracy = float((np.unique(labels)[probabilities.argmax(axis=1)] == labels).mean())
        # As large a share of the rows has a confidence below the threshold as is predicted wrongly.
        self.threshold = float(np.quantile(probabilities.max(axis=1), 1 - self.accuracy))
        _, head = make_estimator("logreg", "classification", len(y))
        self._head = fit_on(head, X, y)

    @property
    def classes(self) -> npt.NDArray[Any]:
        """The classes, sorted."""
        classes: npt.NDArray[Any] = self._head.classes_
        return classes

    def expect(self, Y: Vectors) -> tuple[float, npt.NDArray[Any]]:
        """Return the accuracy to expect on rows, and the classes that the head predicts of them."""
        probabilities = self._head.predict_proba(Y)
        return float((probabilities.max(axis=1) >= self.threshold).mean()), self.classes[probabilities.argmax(axis=1)]
