"""A benchmark of learners as one HTML page that holds all it shows: it loads nothing and runs nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark import charts as learning_charts
from embedpipe.finetuning.benchmark.charts import LOOKS, Mean, kept_epoch, largest, take_means
from embedpipe.finetuning.benchmark.result import Benchmark, Cell, Learner, Savings
from embedpipe.finetuning.split_rows import SHIFTED
from embedpipe.report.drawing.wording import duration, percent, points
from embedpipe.report.page import check_page, write_page
from embedpipe.statistics import Estimate

#: A gain below it matters to few: the verdict's own default.
POINT = 0.01
#: Of labels or time, above which no figure is written.
MAX_SHARE = 10.0
#: More rows of cells than this are folded away.
MAX_CELLS = 16


def write_benchmark(found: Benchmark, to: str | Path) -> Path:
    """Write a benchmark of learners as one HTML page, readable without a network and below 3 MB.

    Parameters
    ----------
    found : Benchmark
    to : str or path-like
        The page to write, atomically; its name ends in .html. Folders on the way are made.

    Returns
    -------
    pathlib.Path
        ``to``.

    Raises
    ------
    UsageError
        If the name of the page is of another kind, or there is no cell to report.
    """
    to = check_page(to)
    if not found.cells:
        raise UsageError("the benchmark has no cells: there is nothing to report")
    return write_page("learning.html", _facts(found), to)


def bounded(at: Estimate | None) -> bool:
    """Return whether an estimate's interval says anything: of a difference, one from -1 to 1 does not."""
    return at is not None and math.isfinite(at.low + at.high) and not (at.low <= -1 and at.high >= 1)


def side(at: Estimate) -> str:
    """Return whether a difference is ``better`` or ``worse`` beyond chance, or ``undecided``."""
    return "undecided" if not bounded(at) else "better" if at.low > 0 else "worse" if at.high < 0 else "undecided"


def _facts(found: Benchmark) -> dict[str, Any]:
    """Return what the templates show."""
    means = {learner: each for learner in found.learners if (each := take_means(found, learner))}
    trained = largest(found, lambda cell: cell.epochs)
    corrupted = largest(found, lambda cell: set(cell.shifted) - {SHIFTED})
    shifted = corrupted or largest(found, lambda cell: cell.shifted)
    several = len({cell.labels for cell in found.cells}) > 1
    at = largest(found)
    top = {learner: mean for learner, each in means.items() for mean in each if mean.labels == at}
    winner = max(top, key=lambda learner: top[learner].value)
    compared = sorted({one.labels for one in found.differences}, reverse=True)
    cells = sorted(found.cells, key=lambda cell: (found.learners.index(cell.learner), cell.labels, cell.seed))
    return {
        "found": found,
        "data": Path(found.data).name or found.data,
        "looks": LOOKS,
        "at": at,
        "winner": winner,
        "best": top[winner],
        "rivals": [_against(found, winner, one, top) for one in top if one != winner],
        "probe": _probe(found, top),
        "savings": [_saving(found, one) for one in found.savings if one.learner == winner and one.known],
        "means": means,
        "curves": learning_charts.draw_accuracy(found, "labels") if several else None,
        "costs": learning_charts.draw_accuracy(found, "seconds") if several else None,
        "trained": trained,
        "training": learning_charts.draw_training(found, trained) if trained else None,
        "runs": [(one, _run(found.cells_of(one, trained))) for one in means if found.cells_of(one, trained)]
        if trained
        else [],
        "shifted": shifted,
        "robustness": learning_charts.draw_robustness(found, corrupted) if corrupted else None,
        "own_shift": any(SHIFTED in cell.shifted for cell in found.cells if cell.labels == shifted),
        "robust": list(_robust(found, shifted)) if shifted else [],
        "groups": [(labels, [one for one in found.differences if one.labels == labels]) for labels in compared],
        "saved": [(one, _full(found, one.reference)) for one in found.savings],
        "cells": cells,
        "max_cells": MAX_CELLS,
        "points": points,
        "bounded": bounded,
        "side": side,
        "share": _share,
        "shares": _shares,
        "rounded": _rounded,
        "bare": _bare,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }


def _difference(found: Benchmark, learner: Learner, reference: Learner, labels: int) -> Estimate | None:
    """Return by how much one learner is above another, with an interval; None where no interval is known."""
    for one in found.differences:
        if (one.learner, one.reference, one.labels) == (learner, reference, labels):
            return one.accuracy if bounded(one.accuracy) else None
        if (one.learner, one.reference, one.labels) == (reference, learner, labels):
            at = Estimate(-one.accuracy.value, -one.accuracy.high, -one.accuracy.low)
            return at if bounded(at) else None
    return None


def _against(found: Benchmark, winner: Learner, other: Learner, top: dict[Learner, Mean]) -> tuple[str, str]:
    """Return a verdict of the winner over another learner, and what is known of it in words."""
    at = _difference(found, winner, other, top[winner].labels)
    if at is None:
        lead = points(top[winner].value - top[other].value, sign=False)
        return "undecided", f"{lead} points above {other}, without an interval: chance is not ruled out"
    word = side(at)
    if word == "undecided":
        return word, f"Not told apart from {other}: {points(at.value)} points ({_ends(at)})"
    return word, f"{'Above' if word == 'better' else 'Below'} {other} by {points(abs(at.value), sign=False)} points" + (
        f" ({_ends(at)})"
    )


def _probe(found: Benchmark, top: dict[Learner, Mean]) -> str:
    """Say whether the probe is enough at the largest budget, and what the best of the others costs."""
    if "linear-probe" not in top:
        return "The probe was not measured at this budget, so whether it is enough cannot be told."
    others = [learner for learner in top if learner != "linear-probe"]
    if not others:
        return "Only the probe was measured, so whether another learner does better cannot be told."
    best = max(others, key=lambda learner: top[learner].value)
    at = _difference(found, best, "linear-probe", top[best].labels)
    cost = ""
    if top[best].seconds > 0 and top["linear-probe"].seconds > 0:
        times = [duration(top[learner].seconds).replace(" ", "\xa0") for learner in (best, "linear-probe")]
        cost = f" A run of it takes {times[0]}, one of the probe {times[1]}."
    if at is None:
        gain = points(top[best].value - top["linear-probe"].value)
        return f"Whether the probe is enough cannot be told: {best} gains {gain} points, without an interval.{cost}"
    ends = f"{points(at.value)} points ({_ends(at)})"
    if at.high < 0:
        return f"The probe is enough: the best of the others, {best}, is below it, {ends}.{cost}"
    if at.high < POINT:
        return f"The probe is enough where a point does not matter: {best}, the best of the others, gains {ends}.{cost}"
    if at.low > 0:
        return f"The probe is not enough for the highest accuracy: {best} gains {ends} over it.{cost}"
    return f"Whether the probe is enough cannot be told: the best of the others, {best}, gains {ends} over it.{cost}"


def _saving(found: Benchmark, one: Savings) -> str:
    """Say what a learner needs for what another has at its largest budget."""
    needs = []
    for at, of in ((one.labels, "labels"), (one.seconds, "training time")):
        if at:
            needs.append(f"{_share(at.value)} of the {of} ({_shares(at)})")
    most = _full(found, one.reference)
    at_most = f" with {most.labels:,} labels" if most else ""
    return f"For the {percent(one.accuracy)} of {one.reference}{at_most}, {one.learner} needs {' and '.join(needs)}."


def _full(found: Benchmark, learner: Learner) -> Mean | None:
    """Return a learner's mean at the largest budget that it has."""
    return next(reversed(take_means(found, learner)), None)


def _ends(at: Estimate) -> str:
    return f"95\xa0% interval {points(at.low)} to {points(at.high)}"


def _share(value: float) -> str:
    """Write a share of labels or time, which carries two digits; of few seeds an interval may have no useful end."""
    return percent(value, 0) if value < MAX_SHARE else ">\xa01,000\xa0%"


def _shares(at: Estimate) -> str:
    """Write the ends of a share's interval; it has no lower one where the smallest budget was enough."""
    if not bounded(at):
        return "no interval"
    return f"{_bare(_share(at.low))} to {_share(at.high)}" if at.low > 0 else f"at most {_share(at.high)}"


def _bare(text: str) -> str:
    """Return a percentage without its sign: the first of an interval's ends."""
    return text.removesuffix("\xa0%")


def _rounded(count: float) -> str:
    """Write a number of labels between two budgets with two digits: it carries no more."""
    return f"{float(f'{count:.2g}'):,.0f}"


def _run(cells: list[Cell]) -> dict[str, Any]:
    """Return what a learner's runs at one budget were like: means, and the range of the epochs kept."""
    trained = [cell for cell in cells if cell.epochs]
    first = [cell.epochs[1].validation_accuracy for cell in trained if len(cell.epochs) > 1]
    kept = sorted(cell.best_epoch for cell in trained)
    return {
        "start": float(np.mean([cell.initial_accuracy for cell in cells])),
        "first": float(np.mean(first)) if first else None,
        "kept": float(np.mean([kept_epoch(cell).validation_accuracy for cell in trained])) if trained else None,
        "best": "—" if not kept else f"{kept[0]}" if kept[0] == kept[-1] else f"{kept[0]} to {kept[-1]}",
        "of": max((cell.epochs[-1].number for cell in trained), default=0),
        "seconds": float(np.mean([cell.seconds for cell in cells])),
    }


def _robust(found: Benchmark, labels: int) -> Iterator[tuple[str, dict[Learner, float]]]:
    """Yield test rows, each corruption, all of them and the user's own shift, with each learner's mean accuracy."""
    cells = {learner: [cell for cell in found.cells_of(learner, labels) if cell.shifted] for learner in found.learners}
    cells = {learner: each for learner, each in cells.items() if each}
    clean = {learner: [cell.accuracy for cell in each] for learner, each in cells.items()}
    yield "test rows as they are", {learner: float(np.mean(each)) for learner, each in clean.items()}
    names = list(dict.fromkeys(name for each in cells.values() for cell in each for name in cell.shifted))
    corruptions = [name for name in names if name != SHIFTED]
    for shown, of in (
        *((name.replace("_", " "), [name]) for name in corruptions),
        ("all corruptions", corruptions if len(corruptions) > 1 else []),
        ("your own shifted rows", [SHIFTED] if SHIFTED in names else []),
    ):
        values = {one: [cell.shifted[name] for cell in each for name in of if name in cell.shifted]
                  for one, each in cells.items()}  # fmt: skip
        if of:
            yield shown, {learner: float(np.mean(each)) for learner, each in values.items() if each}
