"""Printing the reports of `verify` (checks, and the drift of a cheaper setting), `reduce` and `repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedpipe.cli.show import pairs, print_table
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.embedding import Drift, HeadDrift, LayerDrift, ReduceReport, VerifyReport
    from embedpipe.store import RepairReport


def checks(report: VerifyReport) -> None:
    """Print the checks and the drift of a report."""
    print_table(pairs([(f"{'ok' if check.ok else 'FAILED':6} {check.name}", check.detail) for check in report.checks]))
    if report.drift is not None:
        drift(report.drift)
    print("verified" if report.ok else "NOT verified")


def drift(measured: Drift) -> None:
    """Print the drift of a sample."""
    decode = f", {measured.decode} decoding" if measured.decode else ""
    against = "fp32, full decoding" if measured.decode else "fp32"
    print(f"\ndrift of {measured.precision}{decode} from {against}, on {counted(measured.rows, 'item')} of the store:")
    rows: list[tuple[str, str]] = []
    if measured.not_finite:
        rows.append(("FAILED", f"{measured.not_finite:,} more items get NaN or infinite values"))
    for layer in measured.layers:
        if len(measured.layers) > 1:
            rows.append((layer.column, ""))
        rows += _layer(layer)
    if measured.no_head:
        rows.append(("head", measured.no_head))
    print_table(pairs([(f"  {name}", value) for name, value in rows]))
    print()


def _layer(layer: LayerDrift) -> list[tuple[str, str]]:
    rows = [
        (
            "1 - cosine",
            f"median {layer.median:.1e}, 95th percentile {layer.p95:.1e}, largest {layer.largest:.1e}",
        )
    ]
    if layer.neighbours_kept is not None and layer.nearest_kept is not None:
        kept = (
            f"{percent(layer.neighbours_kept)} of the {layer.k} nearest stay, the nearest stays for "
            f"{percent(layer.nearest_kept)}"
        )
        rows.append(("neighbours", f"{kept} (within the sample)"))
    return [*rows, *_head(layer.head)] if layer.head else rows


def _head(head: HeadDrift) -> list[tuple[str, str]]:
    if head.metric == "accuracy":
        before, after = percent(head.reference), percent(head.cheaper)
        change = f"accuracy {before} becomes {after}: {100 * head.difference:+z.1f} points"
        interval = f"95 % interval {100 * head.low:+z.1f} to {100 * head.high:+z.1f}"
        items = f"{counted(head.rows, 'item')}, {counted(head.classes, 'class', 'classes')}"
    else:
        change = f"R2 {head.reference:.3f} becomes {head.cheaper:.3f}: {head.difference:+z.3f}"
        interval = f"95 % interval {head.low:+z.3f} to {head.high:+z.3f}"
        items = counted(head.rows, "item")
    left_out = "".join(f"; left out: {count:,} {reason}" for reason, count in head.left_out.items())
    return [("head", f"{change} ({interval}; cross-validated on {items}{left_out})")]


def print_reduction(report: ReduceReport) -> None:
    """Print what `reduce` made and what it costs."""
    made = f"{report.dimensions} of {report.dim} values, {percent(report.explained_variance)} of the variance"
    rows = [(report.layer, f"{made}, learned on {counted(report.fitted_rows, 'row')}: {report.fitted_on}")]
    if report.neighbours_kept is not None and report.nearest_kept is not None:
        stay = f"{percent(report.neighbours_kept)} of the {report.k} nearest stay"
        rows.append(
            (
                "neighbours",
                f"{stay}, the nearest stays for {percent(report.nearest_kept)} (within {report.compared:,} "
                f"{report.compared_on})",
            )
        )
    rows += _head(report.head) if report.head else [("head", report.no_head)] if report.no_head else []
    print_table(pairs([*rows, ("store", f"{report.store}, version {report.version}")]))


def print_repair(report: RepairReport) -> None:
    """Print what `repair` did, what was lost, and what to do next."""
    for sentence in report.done:
        print(sentence)
    if report.lost:
        rows = f"{counted(report.lost, 'row')} {'was' if report.lost == 1 else 'were'} lost"
        print(f"{rows}: the next `embedpipe embed` embeds what is in the source again; set labels again")
    if not report.done:
        print(f"nothing is damaged: {counted(report.rows, 'row')} at version {report.version}")
    elif report.version >= 0:
        print(f"the store is whole again: {counted(report.rows, 'row')} at version {report.version}")
