"""Printing a `ProtocolEvaluation`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from embedpipe.cli import show
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics import Estimate

if TYPE_CHECKING:
    from embedpipe.evaluation import ProtocolEvaluation


def print_protocol(result: ProtocolEvaluation, verbose: bool) -> None:
    """Print a `ProtocolEvaluation` as a table."""
    from embedpipe.evaluation.protocols.details import detail_table, settings_table
    from embedpipe.report.drawing.wording import metric_name

    print(f"{result.protocol}, {result.label!r}: {result.resampling}")
    for reason, count in result.left_out.items():
        print(f"left out: {counted(count, 'row')} {reason}")
    for note in result.notes:
        print(f"note: {note}")
    # Stores of one backbone are named by their paths.
    backbones, stores = ({getattr(each, kind) for each in result.layers} for kind in ("backbone", "store"))
    kind = "store" if len(stores) > len(backbones) else "backbone"
    metrics = list(result.layers[0].metrics)
    table = Table(kind, "layer", box=None)
    for name in metrics:
        table.add_column(metric_name(name), justify="right")
    if any("verdict" in record for record in result.records()):
        table.add_column(f"verdict on {metric_name(metrics[0])}")
    for record in result.records():
        values = (_cell(record, name) for name in metrics)
        verdict = [record["verdict"]] if "verdict" in record else []
        table.add_row(show.plain(record[kind]), show.plain(record["layer"]), *values, *verdict)
    show.print_table(table)
    if verbose:
        print()
        show.print_table(show.pairs(settings_table(result.layers[0].results[0].settings)))
        for record, layer in zip(result.records(), result.layers, strict=True):
            print(f"\n{show.plain(record[kind])} {show.plain(record['layer'])}")
            names, rows = detail_table(layer.results)
            details = Table(box=None)
            for name in names:
                details.add_column(name, justify="right")
            for row in rows:
                details.add_row(*row)
            show.print_table(details)


def _cell(record: dict[str, Any], name: str) -> str:
    """Return the value of a metric, with its interval if it has one."""
    from embedpipe.evaluation.protocols.details import protocol_value

    if name not in record:
        return ""
    if f"{name}_low" in record:
        return show.interval(Estimate(*(record[key] for key in (name, f"{name}_low", f"{name}_high"))), True)
    return protocol_value(name, record[name])
