"""A head as a table in a notebook."""

from __future__ import annotations

import statistics
from typing import Any

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.report.drawing.wording import metric_value


def head_html(head: Any) -> str:
    """Return a table of what a `Head` is and how good it is, with its metrics beside those of the baseline."""
    report = head.report
    rows: list[tuple[str, object]] = [("task", f"{head.task} of {head.label!r}")]
    if head.classes is not None:
        rows.append((f"{len(head.classes):,} classes", ", ".join(map(str, head.classes.tolist()))))
    rows += [
        ("backbone", head.spec.title),
        ("layers", ", ".join(f"{name} ({dim:,} values)" for name, dim in head.layers.items())),
        *([("columns", ", ".join(column.name for column in head.columns))] if head.columns else []),
        ("fitted on", f"{report.rows:,} rows of {head.store}, version {head.store_version}"),
        ("measured by", report.protocol),
    ]
    for name, values in report.metrics.items():
        baseline = report.baseline.get(name)
        beside = f" (baseline {metric_value(statistics.fmean(baseline), name)})" if baseline else ""
        rows.append((name.replace("_", " "), f"{metric_value(statistics.fmean(values), name)}{beside}"))
    if report.chosen:
        rows.append(("chosen", ", ".join(f"{name} = {value}" for name, value in report.chosen.items())))
    return html_table(f"Head {head.name}", rows)
