"""Input and output of protocols: arrays in, plain dataclasses out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.errors import TrainingDataError

Vectors = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """Vectors and classes of training and test rows.

    Attributes
    ----------
    X_train, X_test : float array (n, dim)
    y_train, y_test : int64 array (n,)
        Positions in ``classes``.
    classes : array (n_classes,)
        Sorted.
    held_out : int64 array or None
        Rows of ``X_train`` that are the published validation split, for choices of hyperparameters.
    seed : int
    """

    X_train: Vectors
    y_train: Rows
    X_test: Vectors
    y_test: Rows
    classes: npt.NDArray[Any]
    held_out: Rows | None
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Return value of the function of a protocol; see `ProtocolResult`."""

    metrics: dict[str, float]
    settings: dict[str, Any]
    details: list[dict[str, Any]]
    #: Setting, such as ``k = 20`` -> positions of the predicted classes of the test rows.
    predicted: dict[str, Rows]
    #: Metric -> its value for each test row, of protocols whose metrics are means of these.
    values: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """A published evaluation protocol.

    Attributes
    ----------
    name : str
    version : int
        Increases when results may change.
    description : str
        One line.
    citation : str
    run : callable
        `Problem` -> `Outcome`.
    """

    name: str
    version: int
    description: str
    citation: str
    run: Callable[[Problem], Outcome] = field(repr=False)


@dataclass(frozen=True, repr=False)
class ProtocolResult:
    """Result of a protocol for one array of vectors.

    Attributes
    ----------
    protocol : str
        Name and version, for example ``dino-knn/1``.
    metrics : dict
        Metric -> share between 0 and 1, the one that papers report first; and chosen hyperparameters.
    settings : dict
        Everything but the vectors that the result depends on: plain numbers, strings and lists.
    details : list of dict
        One row for each k, C, number of labels or draw.
    seconds : float
        Wall time.
    """

    protocol: str
    metrics: dict[str, float]
    settings: dict[str, Any]
    details: list[dict[str, Any]]
    seconds: float

    def __repr__(self) -> str:
        """Return protocol and metrics on one line."""
        metrics = ", ".join(f"{name}={value:.4g}" for name, value in self.metrics.items())
        return f"ProtocolResult({self.protocol!r}, {metrics})"


def make_problem(X_train: Any, y_train: Any, X_test: Any, y_test: Any, held_out: Any, seed: int) -> Problem:
    """Check arrays and number the classes. Raises TrainingDataError."""
    X_train, X_test = (_vectors(X, name) for X, name in ((X_train, "X_train"), (X_test, "X_test")))
    y_train, y_test = np.asarray(y_train), np.asarray(y_test)
    if X_train.shape[1] != X_test.shape[1]:
        raise TrainingDataError(
            f"X_train and X_test must have equally many columns, got {X_train.shape[1]} and {X_test.shape[1]}"
        )
    for X, y, name in ((X_train, y_train, "train"), (X_test, y_test, "test")):
        if y.shape != (len(X),) or not len(y):
            raise TrainingDataError(f"y_{name} must have shape ({len(X)},), one label per row, got {y.shape}")
    classes, labels = np.unique(y_train, return_inverse=True)
    if len(classes) < 2:
        raise TrainingDataError(f"y_train must have at least 2 classes, got only {str(classes[0])!r}")
    unknown = ~np.isin(y_test, classes)
    if unknown.any():
        raise TrainingDataError(
            f"y_test must only have classes of y_train, got {str(y_test[unknown][0])!r}: "
            f"leave out the {unknown.sum()} rows of unknown classes"
        )
    if held_out is not None:
        held_out = np.arange(len(y_train))[held_out]
        if not len(held_out) or len(np.setdiff1d(labels, np.delete(labels, held_out))):
            raise TrainingDataError("held_out must select at least one row, and leave training rows of every class")
    positions = np.searchsorted(classes, y_test)
    return Problem(X_train, labels, X_test, positions, classes, held_out, seed)


def _vectors(X: Any, name: str) -> Vectors:
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind != "f" or not np.isfinite(X).all():
        raise TrainingDataError(
            f"{name} must be a finite float array (n, dim), got shape {X.shape} and dtype {X.dtype}"
        )
    vectors: Vectors = X if X.dtype in (np.float32, np.float64) else X.astype(np.float32)
    return vectors


def first_of_each_class(order: Rows, y: Rows, size: int) -> Rows:
    """Return the first ``size`` rows of each class in ``order``, in that order; smaller classes give all their rows."""
    labels = y[order]
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank = np.empty(len(order), np.int64)
    rank[by_class] = np.arange(len(order)) - starts
    return order[rank < size]
