"""The predictions of a head as columns of a collection, and its probabilities for one item."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import EmbedpipeError
from embedpipe.heads.columns.table_columns import column_values
from embedpipe.report.drawing.wording import counted
from embedpipe.serving.viewing.collection import Collection
from embedpipe.store.editing.labelling import as_text
from embedpipe.store.scan import has_label

if TYPE_CHECKING:
    from embedpipe.heads import Head  # loads scikit-learn, which a page without a head does not need
    from embedpipe.serving.viewing.out_of_fold import OutOfFold

State = Literal["computing", "ready", "failed"]
#: The columns that a head adds; what a store calls so is hidden by them.
PREDICTION, CONFIDENCE, FITTED = "prediction", "confidence", "fitted_on"
#: What ``fitted_on`` holds besides yes and no: the head was fitted on the row, and its prediction is by another.
OUT_OF_FOLD = "out of fold"
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
        #: Probabilities of the rows that were predicted out of fold.
        self._shares: dict[int, npt.NDArray[np.float32]] = {}

    def add_to(self, collection: Collection) -> None:
        """Add the predictions to a collection."""
        try:
            table = self.head.predict(collection.store, progress=False)
            ids = table.column("id").combine_chunks()
            rows = pc.index_in(collection.table.column("id"), value_set=ids)
            column = table.column(2)
            columns = {PREDICTION: column if self.head.task == "regression" else column.cast(pa.string())}
            if CONFIDENCE in table.column_names:
                columns[CONFIDENCE] = table.column(CONFIDENCE)
            columns = {name: values.take(rows) for name, values in columns.items()}
            if FITTED in table.column_names:
                fitted = np.flatnonzero(table.column(FITTED).take(rows).to_numpy())
                columns |= self._without_sight(collection, columns, fitted)
        except Exception as error:  # whatever it is, a page must not wait for ever
            self.state, self.note = "failed", str(error)
            return
        collection.add_columns(columns)
        self.note = self._note(columns.get(FITTED))
        self.state = "ready"

    def _without_sight(
        self, collection: Collection, columns: dict[str, pa.ChunkedArray], fitted: npt.NDArray[np.int64]
    ) -> dict[str, Any]:
        """Return columns in which the rows that the head was fitted on are predicted by heads that were not."""
        sight = np.full(len(collection), "no", object)
        sight[fitted] = "yes"
        held_out = self._predict_fitted(collection, fitted)
        if held_out is None:
            return {FITTED: pa.array(sight)}
        rows = fitted[held_out.rows]
        sight[rows] = OUT_OF_FOLD
        values = columns[PREDICTION].to_numpy().astype(object)
        values[rows] = np.asarray(as_text(pa.array(held_out.predicted)), object)
        changed = {FITTED: pa.array(sight), PREDICTION: pa.array(values, pa.string())}
        if held_out.shares is not None:
            self._shares = dict(zip(rows.tolist(), held_out.shares.astype(np.float32), strict=True))
            if CONFIDENCE in columns:
                confidence = columns[CONFIDENCE].to_numpy().copy()
                confidence[rows] = held_out.shares.max(axis=1)
                changed[CONFIDENCE] = pa.array(confidence)
        return changed

    def _predict_fitted(self, collection: Collection, fitted: npt.NDArray[np.int64]) -> OutOfFold | None:
        """Predict the rows that the head was fitted on in folds, None where that cannot be."""
        from embedpipe.serving.viewing.out_of_fold import predict_out_of_fold

        labels = collection.table.column(self.head.label).take(pa.array(fitted))
        labelled = has_label(labels)
        fitted, labels = fitted[labelled], labels.filter(pa.array(labelled))
        classes = np.asarray(getattr(self.head.estimator, "classes_", []))
        if self.head.task != "classification" or not len(classes) or not len(fitted):
            return None
        y = np.asarray(labels.to_pylist())
        known = np.isin(y, classes)  # others were given since
        try:
            done = predict_out_of_fold(self.head.estimator, self._features(collection, fitted[known]), y[known])
        except EmbedpipeError:
            return None
        return done._replace(rows=np.flatnonzero(known)[done.rows])

    def _features(self, collection: Collection, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return what the head's estimator takes, float32 (n, dim)."""
        table = collection.table.take(pa.array(rows))
        vectors = collection.store.take(table.column("id").to_pylist(), layer="+".join(self.head.layers))
        return np.hstack([vectors, column_values(self.head.columns, table)])

    def _note(self, fitted: pa.Array | None) -> str:
        notes = []
        if self.head.task == "classification" and not is_calibrated(self.head.estimator):
            notes.append(f"The probabilities are not calibrated: fit the head with {option('calibrate', True)}.")
        counts = {} if fitted is None else Counter(fitted.to_pylist())
        if counts.get(OUT_OF_FOLD):
            notes.append(
                f"The head was fitted on {counted(counts[OUT_OF_FOLD], 'item')} of these: they are predicted by heads "
                "of the same kind that were fitted without them, in folds."
            )
        if counts.get("yes"):
            notes.append(
                f"The head was fitted on {counted(counts['yes'], 'item')} of these, whose labels it knows: they are in "
                f"no order by confidence, and “no” under “{FITTED}” leaves them out."
            )
        return " ".join(notes)

    def probabilities(self, collection: Collection, row: int) -> list[tuple[str, float]]:
        """Return the most probable classes of an item with their probabilities; none for other heads."""
        if self.head.task != "classification" or not hasattr(self.head.estimator, "predict_proba"):
            return []
        shares = self._shares.get(row)
        if shares is None:
            shares = np.asarray(self.head.estimator.predict_proba(self._features(collection, np.array([row]))))[0]
        best = np.argsort(-shares, kind="stable")[:MOST_CLASSES]
        names = as_text(pa.array(np.asarray(self.head.estimator.classes_)[best])).to_pylist()
        return list(zip(names, shares[best].tolist(), strict=True))


def is_calibrated(estimator: Any) -> bool:
    """Return whether an estimator, or one that it wraps, has a temperature."""
    while estimator is not None:
        if hasattr(estimator, "temperature_"):
            return True
        estimator = getattr(estimator, "estimator_", None)
    return False
