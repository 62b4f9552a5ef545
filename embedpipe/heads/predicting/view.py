"""Predictions in a notebook: the first items as pictures or texts, below the counts of all."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.notebook.html_of_types import show_as_html
from embedpipe._utils.notebook.html_tables import count_list, html_records
from embedpipe.report.drawing.wording import counted, number

#: In the schema's metadata of a table of predictions: the name of the head, and that of the predicted column.
MARK = b"embedpipe.predictions"
MAX_ROWS = 10


def mark_predictions(table: pa.Table, head: str, predicted: str) -> pa.Table:
    """Return the table with a mark in its metadata, by which a notebook shows it, and what is made of it, as HTML."""
    show_as_html(pa.Table, predictions_html)
    mark = json.dumps({"head": head, "predicted": predicted})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), MARK: mark})


def predictions_html(table: pa.Table) -> str | None:
    """Return the first 10 predictions as HTML; None for a table that holds none."""
    mark = parse_json((table.schema.metadata or {}).get(MARK, b"{}"))
    predicted = mark.get("predicted")
    if predicted not in table.column_names:
        return None
    values = table[predicted]
    failed = table.filter(pc.is_valid(table["error"])).num_rows if "error" in table.column_names else 0
    title = f"{counted(table.num_rows, 'item')} predicted by {mark['head']}"
    if not pa.types.is_floating(values.type):
        counts = sorted(pc.value_counts(values.drop_null()).to_pylist(), key=lambda each: -each["counts"])
        title += f": {count_list({str(each['values']): each['counts'] for each in counts})}"
    title += f"; {failed:,} failed" if failed else ""
    rows = table.slice(0, MAX_ROWS).to_pylist()
    if "text" in table.column_names or not {"id", "uri"} <= {*table.column_names} or not rows or rows[0]["uri"] is None:
        hidden = ["uri", *(name for name in table.column_names if name.startswith(("probability_", "score_")))]
        hidden += [] if failed else ["error"]
        return html_records(title, [{k: v for k, v in row.items() if k not in hidden} for row in rows])
    from embedpipe.report.pictures.neighbours_html import gallery_html  # needs Pillow

    items = []
    for row in rows:
        value, sure = row[predicted], row.get("confidence")
        shown = number(value) if isinstance(value, float) else str(value)
        remark = f"{shown} ({sure:.3f})" if sure is not None else shown
        if (actual := row.get("actual")) not in (None, value) and not isinstance(value, float):
            remark += f", actual {actual}"
        items.append((row["id"], row["uri"], row.get("error") or remark))
    return gallery_html(items, table.num_rows, title)
