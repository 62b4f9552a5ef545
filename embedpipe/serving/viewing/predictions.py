"""The predictions of a head as columns of a collection, and its probabilities for one item."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.heads.columns.table_columns import column_values
from embedpipe.report.drawing.wording import counted
from embedpipe.serving.viewing.collection import Collection

if TYPE_CHECKING:
    from embedpipe.heads import Head  # loads scikit-learn, which a page without a head does not need

State = Literal["computing", "ready", "failed"]
#: The columns that a head adds; what a store calls so is hidden by them.
PREDICTION, CONFIDENCE, FITTED = "prediction", "confidence", "fitted_on"
#: Classes whose probabilities are shown for an item.
MOST_CLASSES = 5


class Predictions:
    """Predicts the rows of collections.

    Parameters
    ----------
    head : Head

    Attributes
    ----------
    state : str
        ``computing``, ``ready`` or ``failed``.
    note : str
        What a reader must know of the predictions, or why there are none.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self.state: State = "computing"
        self.note = ""

    def add_to(self, collection: Collection) -> None:
        """Add the predictions to a collection."""
        try:
            table = self.head.predict(collection.store, progress=False)
        except Exception as error:  # whatever it is, a page must not wait for ever
            self.state, self.note = "failed", str(error)
            return
        rows = pc.index_in(collection.table.column("id"), value_set=table.column("id").combine_chunks())
        column = table.column(2)
        columns = {PREDICTION: column if self.head.task == "regression" else column.cast(pa.string())}
        if CONFIDENCE in table.column_names:
            columns[CONFIDENCE] = table.column(CONFIDENCE)
        if "fitted_on" in table.column_names:
            columns[FITTED] = pc.if_else(table.column("fitted_on"), "yes", "no")
        for name, values in columns.items():
            collection.add_column(name, values.take(rows))
        fitted = pc.sum(table.column("fitted_on")).as_py() if "fitted_on" in table.column_names else 0
        self.note = self._note(int(fitted or 0))
        self.state = "ready"

    def _note(self, fitted: int) -> str:
        notes = []
        if self.head.task == "classification" and not is_calibrated(self.head.estimator):
            notes.append(f"The probabilities are not calibrated: fit the head with {option('calibrate', True)}.")
        if fitted:
            notes.append(
                f"The head was fitted on {counted(fitted, 'item')} of these, whose labels it knows: choose “no” "
                f"under “{FITTED}” to leave them out."
            )
        return " ".join(notes)

    def probabilities(self, collection: Collection, row: int) -> list[tuple[str, float]]:
        """Return the most probable classes of an item with their probabilities; none for other heads."""
        if self.head.task != "classification" or not hasattr(self.head.estimator, "predict_proba"):
            return []
        id = collection.table.column("id")[row].as_py()
        vector = collection.store.take([id], layer="+".join(self.head.layers))
        X = np.hstack([vector, column_values(self.head.columns, collection.table.slice(row, 1))])
        shares: npt.NDArray[np.float64] = np.asarray(self.head.estimator.predict_proba(X), np.float64)[0]
        best = np.argsort(-shares, kind="stable")[:MOST_CLASSES]
        return [(str(self.head.estimator.classes_[place]), float(shares[place])) for place in best]


def is_calibrated(estimator: Any) -> bool:
    """Return whether an estimator, or one that it wraps, has a temperature."""
    while estimator is not None:
        if hasattr(estimator, "temperature_"):
            return True
        estimator = getattr(estimator, "estimator_", None)
    return False
