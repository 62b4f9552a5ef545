"""What the command line prints, for people and as JSON, and the tables that it writes."""

from __future__ import annotations

import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from embedpipe._utils.messages.events import current_log
from embedpipe._utils.messages.json_values import parse_json
from embedpipe.cli.running.json_object import json_value as json_value
from embedpipe.cli.running.plain_text import escaped
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.report.drawing.wording import SHARES, counted
from embedpipe.statistics.percentages import percent

if TYPE_CHECKING:
    from embedpipe.backbones import TextPreprocessing
    from embedpipe.backbones.spec import LayerSpec
    from embedpipe.embedding.summary import EmbedSummary
    from embedpipe.heads import Head
    from embedpipe.statistics import Estimate
    from embedpipe.store import FeatureStore


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print a table; off a terminal lines are never folded, so that programs can read them."""
    file = file or sys.stdout
    if file.isatty():  # the table has colours of its own; what is in it is escaped by `plain`
        file = getattr(file, "terminal", file)
    width = None if file.isatty() else 10_000
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    for column in table.columns:
        if isinstance(column.header, str):
            column.header = plain(column.header)
    with console.capture() as capture:
        console.print(table)
    file.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def plain(value: str) -> Text:
    """Return text as it is: no markup, and control characters, as file names may have them, escaped."""
    return Text(escaped(value))


def argument(value: str) -> Text:
    """Return a path as it is written in a shell command, in quotes where it has spaces."""
    return plain(shlex.quote(value))


def pairs(rows: Sequence[tuple[str, str]]) -> Table:
    """Return a table of names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, plain(value))
    return table


def metric_value(value: float, share: bool) -> str:
    """Return the value of a metric as text; a share in percent."""
    return percent(value) if share else f"{value:.3f}"


def interval(estimate: Estimate, share: bool, sign: str = "") -> str:
    """Return the value of a metric with the ends of its interval, as text; with a sign it is a difference in points."""
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{100 * end:{sign}z.1f}" if share else f"{end:{sign}z.3f}" for end in ends)
    return f"{value}{' %' if share and not sign else ''} ({low} to {high})"


def summary(result: EmbedSummary, verbose: bool) -> None:
    """Print the summary of a run."""
    counts = f"{result.embedded:,} embedded, {result.reused:,} reused, {result.failed:,} failed"
    if result.failed != result.failed_new:
        counts += f" ({result.failed_new:,} new)"
    if result.others:
        counts += f", {result.others:,} left to the other shards"
    rate = f" ({result.rate:,.1f} a second after loading)" if result.embedded else ""
    print(f"{counted(result.seen, 'item')}: {counts}, in {result.seconds:.1f} s{rate}")
    rows = [("store", f"{result.store}, version {result.version}"), ("device", result.device_reason)]
    if result.gone:
        verb = "is" if result.gone == 1 else "are"
        gone = f"{counted(result.gone, 'item')} {verb} no longer in the source; {result.pruned:,} pruned (--prune)"
        rows.append(("gone", gone))
    if result.skipped:
        skipped = ", ".join(f"{count:,} {suffix}" for suffix, count in result.skipped.items())
        rows.append(("left out", skipped))
    if result.bottleneck is not None:
        reason = f" ({result.engine_reason})" if result.engine_reason else ""
        rows += [("engine", f"{result.engine}{reason}"), ("time", f"{result.bottleneck}")]
        if result.embedded >= result.bottleneck.rate:  # what took less than a second needs no advice
            rows.append(("slowest", f"{result.bottleneck.stage}; to speed it up: {result.advice}"))
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.stages.items())
    batches = f"; batches of {result.batch_size}" if result.batch_size else ""
    rows.append(("stages", f"{stages} (over all threads){batches}"))
    rows += [("note", note) for note in result.notes]
    print_table(pairs(rows if verbose else [row for row in rows if row[0] not in ("device", "stages")]))


def failures(store: FeatureStore, as_json: bool = False) -> None:
    """Print all failed items."""
    rows = store.failures().to_pylist()
    if as_json:
        json_value({"store": store.path, "version": store.version, "failures": rows})
        return
    if rows:
        _failure_table(rows)
    else:
        print("no failures")


def new_failures(result: EmbedSummary, limit: int = 3) -> None:
    """Print the first items that failed in a run and had not failed before, on standard error.

    In a log of events they are already.
    """
    if current_log():
        return
    rows = [row for row in result.failures if row["new"]]
    if rows:
        _failure_table(rows[:limit], sys.stderr)
    if result.failed_new > limit:
        more = f"... and {result.failed_new - limit:,} more: embedpipe info {argument(result.store)} --failures"
        print(more, file=sys.stderr)


def old_failures(result: EmbedSummary) -> None:
    """Print on standard error that a run fails by items that had failed before: no other line gives a reason."""
    more = f"more than --max-failed allows: embedpipe info {argument(result.store)} --failures"
    print(f"{counted(result.failed, 'item')} failed as before, {more}", file=sys.stderr)


def _failure_table(rows: list[dict[str, Any]], file: TextIO | None = None) -> None:
    table = Table("id", "stage", "exception", "message", box=None)
    for row in rows:
        table.add_row(*(plain(row[name]) for name in ("id", "stage", "exception", "message")))
    print_table(table, file)


def store(opened: FeatureStore, as_json: bool, verbose: bool) -> None:
    """Print the contents of a store."""
    facts = _facts(opened)
    if as_json:
        json_value(facts)
        return
    spec = opened.spec
    files = counted(facts["files"], "file")
    rows = [
        ("store", f"{opened.path}, version {opened.version}"),
        ("rows", f"{facts['rows']:,}"),
        ("failures", _failures(facts)),
        ("labels", _counts(facts["labels"])),
        ("splits", _counts(facts["splits"])),
        ("set by hand", _counts(facts["set_by_hand"])),
        *([("excluded", _excluded(facts["excluded"]))] if facts["excluded"] else []),
        ("sources", _counts(facts["sources"])),
        ("columns", ", ".join(opened.data_columns)),
        ("layers", ", ".join(_layer(layer) for layer in spec.layers)),
        ("backbone", spec.title),
        *([] if spec.is_imported else [("weights", f"sha256 {spec.weights_sha256}")]),
        ("preprocessing", _recipe(spec.preprocessing)),
        ("precision", spec.precision),
        ("fingerprint", facts["fingerprint"]),
        ("size", f"{facts['bytes'] / 1e6:,.1f} MB in {files}{facts['compressed'] * ', compressed'}"),
        ("last run", ", ".join(f"{k} {v}" for k, v in facts["last_run"].items()) or "none recorded"),
    ]
    rows += [("note", note) for note in facts["notes"]]
    if verbose:
        rows += [("commit", f"{c['version']}: {c['operation']} at {c['timestamp']}") for c in facts["history"]]
    print_table(pairs(rows))
    if facts["files"] > 100:
        print(f"the store has many small files: `embedpipe compact {argument(opened.path)}` merges them")


def _facts(opened: FeatureStore) -> dict[str, Any]:
    from embedpipe.embedding.summary import remarks
    from embedpipe.store.editing.labelling import count_by_hand
    from embedpipe.store.schema import EXCLUDED, PICTURE_COUNTS

    def counts(name: str) -> dict[str, int]:
        return opened.counts(name) if name in opened.data_columns else {}

    pictures: Counter[str] = Counter()
    for text, rows in counts(PICTURE_COUNTS).items():
        pictures.update({name: count * rows for name, count in parse_json(text).items()} if text != "(none)" else {})
    history = opened.history()
    failed = opened.failures()
    runs = [commit["embedpipe.run"] for commit in history if "embedpipe.run" in commit]
    return {
        "store": opened.path,
        "version": opened.version,
        "rows": len(opened),
        "failures": failed.num_rows,
        "failures_with_an_older_vector": opened.table.rows(failed.column("id").combine_chunks(), ["id"]).num_rows,
        "labels": counts("label"),
        "splits": counts("split"),
        "set_by_hand": count_by_hand(opened.table),
        "excluded": {reason: count for reason, count in counts(EXCLUDED).items() if reason != "(none)"},
        "sources": counts("source_root"),
        "columns": opened.data_columns,
        "notes": remarks(pictures),
        "spec": opened.spec.to_dict(),
        "fingerprint": opened.spec.fingerprint(),
        "files": len(opened.table.files),
        "compressed": opened.compressed,
        "bytes": sum(file.size for file in opened.table.files),
        "last_run": parse_json(runs[0]) if runs else {},
        "history": [{key: commit[key] for key in ("version", "operation", "timestamp")} for commit in history],
    }


def _failures(facts: dict[str, Any]) -> str:
    if not facts["failures"]:
        return "0"
    kept = facts["failures_with_an_older_vector"]
    older = f", of which {kept:,} keep the vector of an earlier version" if kept else ""
    return f"{facts['failures']:,}{older}: embedpipe info {shlex.quote(facts['store'])} --failures"


def _layer(layer: LayerSpec) -> str:
    pooling = "" if layer.pooling == "none" else f", pooling {layer.pooling}"
    origin = f", reduced from {layer.reduction.layer}" if layer.reduction else ""
    return f"{layer.name}: {layer.dim} values{pooling}{origin}, column {layer.column}"


def _recipe(recipe: Preprocessing | TextPreprocessing | None) -> str:
    if recipe is None:
        return "not known, as the vectors were imported"
    fields = asdict(recipe)
    if isinstance(recipe, Preprocessing):
        fields |= recipe.options()  # as they are given: auto, and not None
        if len(recipe.resize) != 2:
            del fields["fit"]  # matters only for a size of two sides
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _counts(counts: dict[str, int], limit: int = 20) -> str:
    if not counts:
        return "none"
    sign = ":" if any(name[-1:].isdigit() for name in counts) else ""  # "6: 8" is no row of numbers, as "6 8" is
    shown = ", ".join(f"{escaped(name)}{sign} {count:,}" for name, count in list(counts.items())[:limit])
    return shown + (f", and {len(counts) - limit:,} more" if len(counts) > limit else "")


def _excluded(reasons: dict[str, int]) -> str:
    return f"{counted(sum(reasons.values()), 'row')}: {_counts(reasons, 3)}"


def fit_report(head: Head, to: Any, verbose: bool) -> None:
    """Print a head's metrics beside those of the baseline."""
    report = head.report
    chosen = "".join(
        f", {name} = {f'{value:g}' if isinstance(value, int | float) else value}"
        for name, value in report.chosen.items()
    )
    print(
        f"{head.name}: {report.task} of {head.label!r}, fitted on {counted(report.rows, 'row')}{chosen}, "
        f"{report.seconds:.1f} s"
    )
    for reason, count in report.left_out.items():
        print(f"left out: {counted(count, 'row')} {reason}")
    if report.metrics:
        baselines = {"classification": "most frequent class", "multilabel": "most frequent labels"}
        baseline = baselines.get(report.task, "mean")
        table = Table(
            f"{report.protocol}, {counted(report.measured_rows, 'row')}", head.name, f"always the {baseline}", box=None
        )
        for name, values in report.metrics.items():
            other = report.baseline.get(name)
            share = name in SHARES
            value = (
                interval(report.accuracy, True) if name == "accuracy" and report.accuracy else _spread(values, share)
            )
            table.add_row(name.replace("_", " "), value, _spread(other, share) if other else "")
        print_table(table)
        if any("+-" in cell for column in table.columns[1:] for cell in map(str, column.cells)):
            brackets = "in brackets: the 95 % interval; " if report.accuracy else ""
            print(f"{brackets}after +-: the standard deviation over the folds")
        if verbose:
            for trial in report.trials:
                result = trial["error"] or f"{trial['score']:.4f} on held-out training rows, {trial['seconds']:.1f} s"
                print(f"tried {trial['head']} on {trial['layer']}, normalisation {trial['normalisation']}: {result}")
            for name, values in report.metrics.items():
                print(f"{name}, each fold: {', '.join(f'{value:.4f}' for value in values)}")
    for note in report.notes:
        print(f"note: {plain(note)}")
    if to:
        from embedpipe.heads.estimator_files import types_to_trust

        trust = " --trust" if types_to_trust(to) else ""
        print(f"saved in {to}: embedpipe predict {argument(str(to))} NEW --to predictions.csv{trust}")
    else:
        name = PurePosixPath(head.store.rstrip("/")).stem
        print(f"not saved: add --to {argument(f'{name}.head')} to save the head")


def _spread(values: Sequence[float], share: bool) -> str:
    """Return the mean, and the standard deviation over folds if they differ: equal folds are no certainty."""
    text = metric_value(statistics.fmean(values), share)
    spread = metric_value(statistics.stdev(values), share).removesuffix(" %") if len(values) > 1 else "0"
    return text if spread.strip("0.") == "" else f"{text} +- {spread}"


def prediction_summary(head: Head, table: pa.Table, to: Any) -> dict[str, Any]:
    """Return counts of the predictions, and the accuracy if the source has labels: on rows not fitted on only."""
    good = table.filter(pc.is_null(table.column("error")))
    predicted = good.column(table.column_names[2])
    facts: dict[str, Any] = {
        "rows": table.num_rows,
        "predicted": good.num_rows,
        "failed": table.num_rows - good.num_rows,
        "to": str(to),
    }
    if head.task == "multilabel":
        sets = (text.split(head.label_separator) if text else ["(none)"] for text in predicted.to_pylist())
        facts["labels"] = dict(Counter(name for names in sets for name in names).most_common())
    if "rejected" in table.column_names:
        facts["rejected"] = pc.sum(good.column("rejected")).as_py() or 0
    if head.task == "classification":
        counts = pc.value_counts(predicted).to_pylist()
        facts["labels"] = {str(pair["values"]): pair["counts"] for pair in sorted(counts, key=lambda p: -p["counts"])}
    if "fitted_on" in table.column_names:
        fitted_on = good.column("fitted_on")
        facts["fitted_on"] = pc.sum(fitted_on).as_py() or 0
        good = good.filter(pc.invert(fitted_on))
        predicted = good.column(table.column_names[2])
    if head.task == "classification" and "actual" in table.column_names:
        actual = good.column("actual").cast(pa.string())
        right = pc.equal(actual, predicted.cast(pa.string()))
        if known := len(right) - right.null_count:
            facts["labelled"], facts["accuracy"] = known, pc.sum(right).as_py() / known
        if "rejected" in facts:
            kept = right.filter(pc.invert(good.column("rejected")))
            if known := len(kept) - kept.null_count:
                facts["accuracy_of_the_rest"] = pc.sum(kept).as_py() / known
    return facts


def predictions(facts: dict[str, Any], head: Head) -> None:
    """Print what `prediction_summary` returned."""
    counts = f"{facts['predicted']:,} predicted, {facts['failed']:,} failed"
    print(f"{counted(facts['rows'], 'item')}: {counts}; see {facts['to']}")
    if facts.get("labels"):
        print(_counts(facts["labels"]))
    if "rejected" in facts:
        print(f"{facts['rejected']:,} rejected: do not rely on their predictions")
    if "accuracy" in facts:
        others = ", and that the head was not fitted on" if facts.get("fitted_on") else ""
        verb = "has" if facts["labelled"] == 1 else "have"
        print(
            f"accuracy {percent(facts['accuracy'])} on the {counted(facts['labelled'], 'item')} that {verb} a label"
            f"{others}"
        )
        if "accuracy_of_the_rest" in facts:
            print(f"accuracy {percent(facts['accuracy_of_the_rest'])} on those that are not rejected")
    if facts.get("fitted_on"):
        print(
            f"WARNING: the head was fitted on {facts['fitted_on']:,} of these items (column fitted_on), so it knows "
            f"their labels: that it predicts them well says nothing about new items.{_held_out(head)} "
            "`fit` with --mistakes mistakes.html shows those that it gets wrong."
        )


def _held_out(head: Head) -> str:
    """Return what `fit` measured on held-out rows, as a sentence."""
    measured = next(iter(head.report.metrics.items()), None)
    if measured is None:
        return ""
    name, values = measured
    mean = statistics.fmean(values)
    value = metric_value(mean, name in SHARES)
    return f" On held-out rows, `fit` measured {name.replace('_', ' ')} {value} ({head.report.protocol})."


def failed_rows(table: pa.Table, to: Any, limit: int = 3, file: TextIO | None = None) -> None:
    """Print the first few rows that have an error; in a log of events each is one."""
    failed = table.filter(pc.is_valid(table.column("error"))).select(["id", "error"])
    if log := current_log():
        for row in failed.to_pylist():
            log.event("item_failed", id=row["id"], message=row["error"])
        return
    shown = Table("id", "error", box=None)
    for row in failed.slice(0, limit).to_pylist():
        shown.add_row(plain(row["id"]), plain(row["error"]))
    print_table(shown, file)
    if failed.num_rows > limit:
        print(f"... and {failed.num_rows - limit:,} more: column 'error' of {to}", file=file)
