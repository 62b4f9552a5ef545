"""The HTML page of a benchmark. It contains everything that it shows: no script, no network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark import charts
from embedpipe.finetuning.benchmark.benchmark_data import SEEDS_FOR_INTERVALS, BenchmarkData, Cell, Learner, Savings
from embedpipe.finetuning.benchmark.charts import LOOKS, Mean, kept_epoch, largest_label_count, mean_curve
from embedpipe.finetuning.split_rows import SHIFTED
from embedpipe.report.drawing.wording import duration, percent, points
from embedpipe.report.page import check_page, write_page
from embedpipe.statistics import Estimate

#: A gain below one point is called negligible: the default of `advise`.
POINT = 0.01
#: Largest fraction of labels or time that is written as a number.
MAX_FRACTION = 10.0
#: More rows of cells than this are folded away.
MAX_CELLS = 16


def write_benchmark_page(benchmark: BenchmarkData, path: str | Path) -> Path:
    """Write a benchmark as one HTML page; see `Benchmark.to_html`."""
    path = check_page(path)
    if not benchmark.cells:
        raise UsageError("a page needs at least one cell, and this benchmark has none")
    return write_page("benchmark.html", _context(benchmark), path)


def has_interval(estimate: Estimate | None) -> bool:
    """Return whether an estimate has an informative interval; that of a difference from -1 to 1 is not."""
    if estimate is None or not math.isfinite(estimate.low + estimate.high):
        return False
    return not (estimate.low <= -1 and estimate.high >= 1)


def verdict_of(difference: Estimate) -> str:
    """Return whether a difference is ``better`` or ``worse`` beyond chance, or ``undecided``."""
    if not has_interval(difference):
        return "undecided"
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "undecided"


def _context(benchmark: BenchmarkData) -> dict[str, Any]:
    """Return the variables of the templates."""
    if len(benchmark.seeds) < SEEDS_FOR_INTERVALS:
        benchmark = _without_intervals(benchmark)
    curves = {learner: curve for learner in benchmark.learners if (curve := mean_curve(benchmark, learner))}
    trained = largest_label_count(benchmark, lambda cell: cell.epochs)
    corrupted = largest_label_count(benchmark, lambda cell: set(cell.shifted) - {SHIFTED})
    shifted = corrupted or largest_label_count(benchmark, lambda cell: cell.shifted)
    several = len({cell.labels for cell in benchmark.cells}) > 1
    most_labels = largest_label_count(benchmark)
    last = {learner: mean for learner, curve in curves.items() for mean in curve if mean.labels == most_labels}
    winner = max(last, key=lambda learner: last[learner].value)
    counts = sorted({difference.labels for difference in benchmark.differences}, reverse=True)
    learners = benchmark.learners
    return {
        "benchmark": benchmark,
        "data": Path(benchmark.data).name.removesuffix(".features") or benchmark.data,
        "looks": LOOKS,
        "most_labels": most_labels,
        "winner": winner,
        "best": last[winner],
        "rivals": [_compare(benchmark, winner, learner, last) for learner in last if learner != winner],
        "probe": _probe_sentence(benchmark, last),
        "winner_savings": [
            _savings_sentence(benchmark, savings)
            for savings in benchmark.savings
            if savings.learner == winner and savings.is_informative
        ],
        "means": curves,
        "curves": charts.draw_accuracy(benchmark, "labels") if several else None,
        "time_curves": charts.draw_accuracy(benchmark, "seconds") if several else None,
        "trained": trained,
        "training": charts.draw_training(benchmark, trained) if trained else None,
        "runs": [
            (learner, _training_summary(cells))
            for learner in curves
            if trained and (cells := benchmark.cells_of(learner, trained))
        ],
        "shifted": shifted,
        "robustness": charts.draw_robustness(benchmark, corrupted) if corrupted else None,
        "own_shift": any(SHIFTED in cell.shifted for cell in benchmark.cells if cell.labels == shifted),
        "robust": list(_robustness_rows(benchmark, shifted)) if shifted else [],
        "groups": [(labels, [each for each in benchmark.differences if each.labels == labels]) for labels in counts],
        "savings": [(savings, _last_mean(benchmark, savings.reference)) for savings in benchmark.savings],
        "cells": sorted(benchmark.cells, key=lambda cell: (learners.index(cell.learner), cell.labels, cell.seed)),
        "max_cells": MAX_CELLS,
        "points": points,
        "has_interval": has_interval,
        "no_intervals": "" if len(benchmark.seeds) >= SEEDS_FOR_INTERVALS else _no_intervals(benchmark),
        "verdict_of": verdict_of,
        "fraction": _fraction,
        "fraction_interval": _fraction_interval,
        "two_digits": _two_digits,
        "without_sign": _without_sign,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }


def _no_intervals(benchmark: BenchmarkData) -> str:
    return "one seed, so no interval" if len(benchmark.seeds) == 1 else f"{len(benchmark.seeds)} seeds, so no interval"


def _without_intervals(benchmark: BenchmarkData) -> BenchmarkData:
    """Return the benchmark with estimates that have no ends."""

    def bare(estimate: Estimate | None) -> Estimate | None:
        return estimate and Estimate(estimate.value, math.nan, math.nan)

    return replace(
        benchmark,
        differences=[
            replace(
                each,
                accuracy=Estimate(each.accuracy.value, math.nan, math.nan),
                initial_accuracy=Estimate(each.initial_accuracy.value, math.nan, math.nan),
                after_one_epoch=bare(each.after_one_epoch),
                slope=bare(each.slope),
                shifted_accuracy=bare(each.shifted_accuracy),
            )
            for each in benchmark.differences
        ],
        savings=[replace(each, labels=bare(each.labels), seconds=bare(each.seconds)) for each in benchmark.savings],
    )


def _difference(benchmark: BenchmarkData, learner: Learner, reference: Learner, labels: int) -> Estimate | None:
    """Return the accuracy of one learner minus another's, in either order; None if there is no interval."""
    for each in benchmark.differences:
        if (each.learner, each.reference, each.labels) == (learner, reference, labels):
            return each.accuracy if has_interval(each.accuracy) else None
        if (each.learner, each.reference, each.labels) == (reference, learner, labels):
            reverse = Estimate(-each.accuracy.value, -each.accuracy.high, -each.accuracy.low)
            return reverse if has_interval(reverse) else None
    return None


def _compare(benchmark: BenchmarkData, winner: Learner, other: Learner, last: dict[Learner, Mean]) -> tuple[str, str]:
    """Return the verdict on the winner against another learner, and a sentence."""
    difference = _difference(benchmark, winner, other, last[winner].labels)
    if difference is None:
        lead = points(last[winner].value - last[other].value, sign=False)
        return "undecided", f"{lead} points above {other}, without an interval: it may be chance"
    verdict, interval = verdict_of(difference), _interval(difference)
    if verdict == "undecided":
        return verdict, f"No significant difference from {other}: {points(difference.value)} points ({interval})"
    word = "Above" if verdict == "better" else "Below"
    return verdict, f"{word} {other} by {points(abs(difference.value), sign=False)} points ({interval})"


def _probe_sentence(benchmark: BenchmarkData, last: dict[Learner, Mean]) -> str:
    """Return whether the linear probe is enough with the most labels, and the cost of the best network."""
    if "linear-probe" not in last:
        return "The linear probe was not measured with so many labels, so it is unknown whether it is enough."
    networks = [learner for learner in last if learner != "linear-probe"]
    if not networks:
        return "Only the linear probe was measured, so it is unknown whether another learner is better."
    best = max(networks, key=lambda learner: last[learner].value)
    difference = _difference(benchmark, best, "linear-probe", last[best].labels)
    cost = ""
    if last[best].seconds > 0 and last["linear-probe"].seconds > 0:
        times = [duration(last[learner].seconds).replace(" ", "\xa0") for learner in (best, "linear-probe")]
        cost = f" A run of {best} takes {times[0]}, one of linear-probe {times[1]}."
    if difference is None:
        gain = points(last[best].value - last["linear-probe"].value)
        return (
            f"It is unknown whether the linear probe is enough: {best} gains {gain} points, without an interval.{cost}"
        )
    gain = f"{points(difference.value)} points ({_interval(difference)})"
    if difference.high < 0:
        return f"The linear probe is enough: the best network, {best}, is below it: {gain}.{cost}"
    if difference.high < POINT:
        return f"The linear probe is enough if one point is negligible: the best network, {best}, gains {gain}.{cost}"
    if difference.low > 0:
        return f"The linear probe is not enough for the highest accuracy: {best} gains {gain}.{cost}"
    return f"It is undecided whether the linear probe is enough: the best network, {best}, gains {gain}.{cost}"


def _savings_sentence(benchmark: BenchmarkData, savings: Savings) -> str:
    """Return what a learner needs for the accuracy of its reference with the most labels."""
    needs = [
        f"{_fraction(estimate.value)} of the {resource} ({_fraction_interval(estimate)})"
        for estimate, resource in ((savings.labels, "labels"), (savings.seconds, "training time"))
        if estimate
    ]
    last = _last_mean(benchmark, savings.reference)
    with_labels = f" with {last.labels:,} labels" if last else ""
    accuracy = percent(savings.accuracy)
    return f"For the {accuracy} of {savings.reference}{with_labels}, {savings.learner} needs {' and '.join(needs)}."


def _last_mean(benchmark: BenchmarkData, learner: Learner) -> Mean | None:
    """Return the mean of a learner at its largest number of labels."""
    return next(reversed(mean_curve(benchmark, learner)), None)


def _interval(difference: Estimate) -> str:
    return f"95\xa0% interval {points(difference.low)} to {points(difference.high)}"


def _fraction(value: float) -> str:
    """Format a fraction of labels or time as a percentage."""
    return percent(value, 0) if value < MAX_FRACTION else ">\xa01,000\xa0%"


def _fraction_interval(estimate: Estimate) -> str:
    """Format the interval of a fraction; it has no lower end if the smallest number of labels was enough."""
    if not has_interval(estimate):
        return "no interval"
    high = _fraction(estimate.high)
    return f"{_without_sign(_fraction(estimate.low))} to {high}" if estimate.low > 0 else f"at most {high}"


def _without_sign(text: str) -> str:
    """Return a percentage without its sign, as the lower end of an interval."""
    return text.removesuffix("\xa0%")


def _two_digits(count: float) -> str:
    """Format an interpolated number of labels with two significant digits."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _training_summary(cells: list[Cell]) -> dict[str, Any]:
    """Return means over the runs of a learner at one number of labels, and the range of the kept epochs."""
    trained = [cell for cell in cells if cell.epochs]
    after_one = [cell.epochs[1].validation_accuracy for cell in trained if len(cell.epochs) > 1]
    kept = sorted(cell.best_epoch for cell in trained)
    return {
        "initial": float(np.mean([cell.initial_accuracy for cell in cells])),
        "after_one": float(np.mean(after_one)) if after_one else None,
        "kept": float(np.mean([kept_epoch(cell).validation_accuracy for cell in trained])) if trained else None,
        "kept_epochs": "—" if not kept else f"{kept[0]}" if kept[0] == kept[-1] else f"{kept[0]} to {kept[-1]}",
        "epochs": max((cell.epochs[-1].number for cell in trained), default=0),
        "seconds": float(np.mean([cell.seconds for cell in cells])),
    }


def _robustness_rows(benchmark: BenchmarkData, labels: int) -> Iterator[tuple[str, dict[Learner, float]]]:
    """Yield each learner's mean accuracy on the test rows, each corruption, all of them, and the user's own shift."""
    cells = {
        learner: measured
        for learner in benchmark.learners
        if (measured := [cell for cell in benchmark.cells_of(learner, labels) if cell.shifted])
    }
    yield (
        "uncorrupted test rows",
        {learner: float(np.mean([cell.accuracy for cell in each])) for learner, each in cells.items()},
    )
    names = list(dict.fromkeys(name for each in cells.values() for cell in each for name in cell.shifted))
    corruptions = [name for name in names if name != SHIFTED]
    rows = [
        *((name.replace("_", " "), [name]) for name in corruptions),
        ("all corruptions", corruptions if len(corruptions) > 1 else []),
        ("your own shifted rows", [SHIFTED] if SHIFTED in names else []),
    ]
    for title, kinds in rows:
        values = {
            learner: [cell.shifted[kind] for cell in each for kind in kinds if kind in cell.shifted]
            for learner, each in cells.items()
        }
        if kinds:
            yield title, {learner: float(np.mean(each)) for learner, each in values.items() if each}
