"""Predictions of rows by models that were not fitted on them: what measuring a head leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.heads.doubt import Floats, measure_doubt
from embedpipe.heads.options import Task


class HeldOut:
    """Collects the predictions of test rows, split by split.

    Parameters
    ----------
    task : str
    classes : array (n_classes,)
        Sorted; empty for other tasks than classification.
    """

    def __init__(self, task: Task, classes: npt.NDArray[Any]) -> None:
        self._task, self._classes = task, classes
        self._rows: list[npt.NDArray[np.int64]] = []
        self._columns: dict[str, list[npt.NDArray[Any]]] = {}

    def add(
        self, rows: npt.NDArray[np.int64], predicted: npt.NDArray[Any], scores: Floats | None, probable: bool
    ) -> None:
        """Add the predictions of the test rows of one split.

        Parameters
        ----------
        rows : int64 array (n,)
        predicted : array (n,), or bool (n, n_labels) of the multilabel task
        scores : float64 array (n, n_classes), optional
            Probabilities or decision scores of `classes`.
        probable : bool
            Whether ``scores`` are probabilities.
        """
        columns = {"predicted": np.asarray(predicted)}
        if scores is not None:
            doubt = measure_doubt(scores, np.searchsorted(self._classes, np.asarray(predicted, self._classes.dtype)))
            columns |= {"confidence": doubt.confidence} if probable else {}
            columns |= {"second": self._classes[doubt.second], "margin": doubt.margin}
        self._rows.append(rows)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def table(self, ids: pa.Array, y: npt.NDArray[Any], labels: Sequence[str] | None, separator: str) -> pa.Table:
        """Return one row for each test row, in id order.

        Columns are ``id``, ``actual``, ``predicted``, and for classes ``confidence`` (of a head with probabilities),
        ``second`` and ``margin``.
        """
        rows = np.concatenate(self._rows) if self._rows else np.empty(0, np.int64)
        columns: dict[str, Any] = {"id": ids.take(pa.array(rows)), "actual": _column(y[rows], labels, separator)}
        for name, parts in self._columns.items():
            if len(parts) == len(self._rows):
                columns[name] = _column(np.concatenate(parts), labels, separator)
        columns.setdefault("predicted", columns["actual"].slice(0, 0))
        return pa.table(columns).sort_by("id")


def _column(values: npt.NDArray[Any], labels: Sequence[str] | None, separator: str) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    names = np.asarray(labels)
    return pa.array([separator.join(names[row].tolist()) for row in values], pa.string())


def wrong_rows(held_out: pa.Table, task: Task) -> pa.Table:
    """Return the rows whose prediction is not the label, the surest first; of numbers, the largest error first.

    Numbers get a column ``residual``, the label minus the prediction.
    """
    if task == "regression":
        residual = pc.subtract(held_out["actual"].cast(pa.float64()), held_out["predicted"].cast(pa.float64()))
        wrong = held_out.append_column("residual", residual)
        order = pc.array_sort_indices(pc.abs(residual), order="descending")
        wrong = wrong.take(order)
        return wrong.filter(pc.not_equal(wrong["residual"], 0.0))
    wrong = held_out.filter(pc.not_equal(held_out["actual"], held_out["predicted"]))
    key = next((name for name in ("confidence", "margin") if name in wrong.column_names), None)
    return wrong if key is None else wrong.take(pc.array_sort_indices(wrong[key], order="descending"))
