"""The table of predictions: one row per item, with the predictions, or why it failed."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.heads.predicting.sources import Predicted
from embedpipe.store.scan import has_label


def prediction_table(done: Predicted, label: str, actual: str | None) -> tuple[pa.Table, str]:
    """Join predictions and failures to the columns of the items, one row each.

    Parameters
    ----------
    done : Predicted
    label : str
        What is predicted.
    actual : str, optional
        Column of the items with the true labels.

    Returns
    -------
    table : pyarrow.Table
    name : str
        The column with the predictions: that of the label, unless another column is called so.
    """
    predictions, rows = done.predictions, done.rows
    errors = {failure.id: failure.why for failure in done.failures}
    ids = rows.column("id").to_pylist()
    columns: dict[str, Any] = {"id": rows.column("id"), "uri": rows.column("uri")}
    scores, rejection = predictions.scores(), predictions.rejection()
    doubt = predictions.doubt()
    text = {"text": rows.column("text")} if "text" in rows.column_names and label != "text" else {}
    others = ("id", "uri", "error", "actual", "fitted_on", "text", *doubt, *scores, *rejection)
    name = "prediction" if label in others else label
    columns[name] = predictions.labels()
    columns.update({**doubt, **text, **predictions.interval(name), **scores, **rejection})
    if actual in rows.column_names and (known := has_label(rows.column(actual))).any():
        columns["actual"] = pc.if_else(pa.array(known), rows.column(actual), None)
    columns["error"] = pa.array([errors.get(id) for id in ids], pa.string())
    table = pa.table(columns)
    listed = set(ids)
    unlisted = [failure for failure in done.failures if failure.id not in listed]
    if unlisted:
        failed_rows = pa.table(
            {
                "id": pa.array([failure.id for failure in unlisted], pa.string()),
                "uri": pa.array([failure.uri for failure in unlisted], pa.string()),
                "error": pa.array([errors[failure.id] for failure in unlisted], pa.string()),
            }
        )
        table = pa.concat_tables([table, failed_rows], promote_options="default")
    return table, name
