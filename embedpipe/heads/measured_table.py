"""The figures of a head for the card of a repository or of an exported model."""

from __future__ import annotations

import statistics

from embedpipe.heads.scoring import FitReport


def measured_table(report: FitReport) -> str:
    """Return how a head was measured, and a table of its metrics beside those of the baseline, in Markdown."""
    if not report.metrics:
        return "It was not measured."
    lines = [f"Measured by: {report.protocol}, {report.measured_rows:,} rows.", "", "| | head | baseline |"]
    lines.append("|---|---:|---:|")
    for name, values in report.metrics.items():
        value = f"{statistics.fmean(values):.3f}"
        if name == "accuracy" and (known := report.accuracy):
            value = f"{known.value:.3f} ({known.low:.3f} to {known.high:.3f})"
        baseline = f"{statistics.fmean(report.baseline[name]):.3f}" if name in report.baseline else ""
        lines.append(f"| {name.replace('_', ' ')} | {value} | {baseline} |")
    return "\n".join([*lines, *(["", "In brackets: the 95 % interval."] if report.accuracy else [])])
