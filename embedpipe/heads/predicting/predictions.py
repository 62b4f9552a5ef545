"""Predictions of a head as columns of a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.heads.doubt import measure_doubt
from embedpipe.heads.options import Task

REJECTION = ("rejected", "reject_score")


class Predictions:
    """Labels, scores, intervals and rejections of rows. Rows are filled in any order; the others stay null.

    Parameters
    ----------
    estimator : fitted scikit-learn estimator
    task : str
    rows : int
        Number of rows.
    label_separator : str
        Separator between the labels of a row, for the multilabel task.
    """

    def __init__(self, estimator: Any, task: Task, rows: int, label_separator: str = ";") -> None:
        self._estimator = estimator
        self._separator = label_separator
        self._classes = None if task == "regression" else np.asarray(estimator.classes_)
        self._filled = np.zeros(rows, bool)
        self._outputs: dict[str, npt.NDArray[Any]] = {}
        methods = ("predict_proba", "decision_function") if task != "regression" else ()
        self._score_method = next((method for method in methods if hasattr(estimator, method)), None)

    def add(self, rows: Any, X: npt.NDArray[np.float32]) -> None:
        """Predict rows from their vectors, float32 (n, dim)."""
        if not len(X):
            return
        methods = ["predict", "predict_interval", *REJECTION, *([self._score_method] if self._score_method else [])]
        for method in methods:
            if not hasattr(self._estimator, method):
                continue
            values = np.asarray(getattr(self._estimator, method)(X))
            if method == self._score_method:
                values = values.astype(np.float64).reshape(len(X), -1)
            if method not in self._outputs:
                classes = self._classes if method == "predict" and values.ndim == 1 else None
                dtype = values.dtype if classes is None else classes.dtype
                self._outputs[method] = np.zeros((len(self._filled), *values.shape[1:]), dtype)
            self._outputs[method][rows] = values
        self._filled[rows] = True

    def labels(self) -> pa.Array:
        """Return the predicted labels or numbers."""
        classes = self._classes
        predicted = self._outputs.get("predict")
        if predicted is None:
            return pa.nulls(len(self._filled), pa.array(np.zeros(1) if classes is None else classes).type)
        if classes is not None and predicted.ndim == 2:
            texts = [self._separator.join(classes[row].tolist()) for row in predicted]
            return pa.array(texts, pa.string(), mask=~self._filled)
        return self._column(predicted)

    def interval(self, name: str) -> dict[str, pa.Array]:
        """Return columns ``<name>_low`` and ``<name>_high``, if the estimator predicts intervals."""
        interval = self._outputs.get("predict_interval")
        ends = () if interval is None else zip(("low", "high"), interval.T, strict=True)
        return {f"{name}_{end}": self._column(values) for end, values in ends}

    def doubt(self) -> dict[str, pa.Array]:
        """Return columns ``confidence`` (of a head with probabilities), ``second`` and ``margin``, for classes."""
        classes, predicted = self._classes, self._outputs.get("predict")
        scores = self._outputs.get(self._score_method or "")
        if classes is None or scores is None or predicted is None or predicted.ndim == 2:
            return {}
        if scores.shape[1] not in (1, len(classes)):
            return {}
        rows = np.flatnonzero(self._filled)
        found = measure_doubt(scores[rows], np.searchsorted(classes, predicted[rows]))
        columns: dict[str, Any] = {"confidence": found.confidence} if self._score_method == "predict_proba" else {}
        columns |= {"second": classes[found.second], "margin": found.margin}
        return {name: self._spread(values, rows) for name, values in columns.items()}

    def scores(self) -> dict[str, pa.Array]:
        """Return a column of probabilities or scores for each class that has one."""
        classes, scores = self._classes, self._outputs.get(self._score_method or "")
        if scores is None or classes is None:
            return {}
        prefix = "probability" if self._score_method == "predict_proba" else "score"
        names = classes[-scores.shape[1] :].tolist()  # a single score is that of the second of two classes
        return {f"{prefix}_{name}": self._column(values) for name, values in zip(names, scores.T, strict=True)}

    def rejection(self) -> dict[str, pa.Array]:
        """Return columns ``rejected`` and ``reject_score``, if the estimator rejects rows."""
        return {name: self._column(self._outputs[name]) for name in REJECTION if name in self._outputs}

    def _spread(self, values: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> pa.Array:
        """Return a column of all rows with values of the filled ones."""
        full = np.zeros(len(self._filled), values.dtype)
        full[rows] = values
        return self._column(full)

    def _column(self, values: npt.NDArray[Any]) -> pa.Array:
        if values.dtype.kind == "U":  # pyarrow ends a text of NumPy at a zero byte
            return pa.array(values.tolist(), pa.string(), mask=~self._filled)
        return pa.array(values, mask=~self._filled)
