"""Charts of an evaluation's page: costs, reliability, risk and coverage, predicted numbers; for phone width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from embedpipe.evaluation.comparison.candidate_result import Reliability, RiskCoverage
from embedpipe.evaluation.comparison.evaluation_data import EvaluationData
from embedpipe.evaluation.comparison.interval_charts import MAX_ROWS
from embedpipe.report.drawing.svg import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PAPER,
    WIDTH,
    add_panel,
    as_percent,
    log_ticks,
    make_chart,
    name_axes,
    round_ticks,
    to_svg,
    write,
)
from embedpipe.report.drawing.wording import SHARES, metric_name, metric_value, number, percent

#: Largest number of points of a curve; more would not be visible.
MAX_POINTS = 300
#: Largest number of dots of a scatter plot.
MAX_DOTS = 800
#: Bins of fewer rows are drawn faintly: their accuracy varies much by chance.
FEW_ROWS = 10


def draw_costs(evaluation: EvaluationData, cost: str) -> tuple[str, list[int]] | None:
    """Draw the metric against ``fit_seconds`` or ``size_bytes``; or return None for fewer than two candidates.

    Returns
    -------
    svg : str
    frontier : list of int
        Positions of the candidates on the Pareto frontier: no other is both cheaper and better.
    """
    costs = np.array([getattr(candidate, cost) for candidate in evaluation.candidates[:MAX_ROWS]], float)
    values = np.array([candidate.estimates[evaluation.metric].value for candidate in evaluation.candidates[:MAX_ROWS]])
    known = np.flatnonzero((costs > 0) & np.isfinite(values))
    if len(known) < 2:
        return None
    costs, values = costs[known], values[known]
    good = values if evaluation.higher_is_better else -values
    # Entry (i, j): candidate i dominates candidate j, better or cheaper and in neither worse.
    dominated = (
        (good[:, None] >= good) & (costs[:, None] <= costs) & ((good[:, None] > good) | (costs[:, None] < costs))
    )
    frontier = np.flatnonzero(~dominated.any(axis=0)).tolist()
    figure = make_chart(WIDTH, 300)
    panel = add_panel(figure, 48, 12, 14, 46)
    unit, scale = ("seconds per fit", 1) if cost == "fit_seconds" else ("kB on disk", 1000)
    costs = costs / scale
    panel.set_xscale("log")
    panel.set_xlim(costs.min() / 1.6, costs.max() * 1.6)
    panel.minorticks_off()
    ticks = log_ticks(costs.min() / 1.6, costs.max() * 1.6)
    panel.set_xticks(ticks, [f"{tick:,.10g}" for tick in ticks])
    room = 0.12 * (values.max() - values.min()) or 0.05 * abs(values.max()) or 1.0
    panel.set_ylim(values.min() - room, values.max() + room)
    round_ticks(panel.yaxis)
    if evaluation.metric in SHARES:
        panel.yaxis.set_major_formatter(as_percent)
    steps = sorted(frontier, key=lambda i: costs[i])
    panel.step(costs[steps], values[steps], where="post", color=BLUE, linewidth=1.2, alpha=0.6)
    for i in reversed(range(len(known))):
        face, edge, ink = (BLUE, BLUE, PAPER) if i in frontier else (PAPER, FAINT, INK)
        panel.plot(costs[i], values[i], "o", markersize=17, color=face, markeredgecolor=edge)
        write(panel, costs[i], values[i], str(known[i] + 1), ink, 11, ha="center", va="center_baseline")
    name_axes(panel, unit, metric_name(evaluation.metric, evaluation.higher_is_better))
    name = evaluation.metric
    title = f"{metric_name(name)} against {unit}: " + "; ".join(
        f"{i + 1} {evaluation.candidates[i].name[:80]}: {metric_value(float(value), name)} at {number(float(at))}"
        for i, value, at in list(zip(known, values, costs, strict=True))[:10]
    )
    return to_svg(figure, f"costs-{cost}", title), known[frontier].tolist()


def draw_reliability(before: Reliability | None, after: Reliability | None, name: str) -> str:
    """Draw accuracy against confidence before and after temperature scaling, and below the predictions of each bin.

    The area of a marker is proportional to its rows; bins of fewer than `FEW_ROWS` are faint, without a line.
    """
    figure = make_chart(WIDTH, 430)
    panel = add_panel(figure, 48, 12, 14, 130)
    counts = add_panel(figure, 48, 316, 14, 46)
    panel.plot([0, 1], [0, 1], color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
    panel.text(0.02, 0.07, "perfect", color=FAINT, fontsize=11, rotation=45, rotation_mode="anchor")
    looks: tuple[tuple[str, Reliability | None, str, str, Any, int], ...] = (
        ("before", before, ORANGE, "s", (0, (5, 2)), -1),
        ("after", after, BLUE, "o", "-", 1),
    )
    drawn = [(when, each, *look) for when, each, *look in looks if each]
    captions, both = [], len(drawn) > 1
    for i, (when, reliability, colour, marker, line, side) in enumerate(drawn):
        confidence, accuracy, rows = (
            np.array(values) for values in (reliability.confidence, reliability.accuracy, reliability.rows)
        )
        enough = rows >= FEW_ROWS
        panel.plot(confidence[enough], accuracy[enough], color=colour, linestyle=line, linewidth=1.4, clip_on=False)
        sizes = np.maximum(4.5, 14 * np.sqrt(rows / rows.max())) * (np.sqrt(np.pi / 4) if marker == "s" else 1)
        for x, y, size, firm in zip(confidence, accuracy, sizes, enough, strict=True):
            panel.plot(x, y, marker, color=colour, markersize=size, alpha=0.8 if firm else 0.3,
                       markeredgewidth=0, clip_on=False)  # fmt: skip
        width = 0.018 if both else 0.036
        counts.bar(confidence + (side * width / 2 if both else 0), rows, width, color=colour,
                   alpha=0.55 if side < 0 else 1)  # fmt: skip
        panel.plot(0.035, 0.95 - 0.08 * i, marker=marker, color=colour, markersize=5.5)
        label = f"{when} scaling: ECE {percent(reliability.ece)}" if after else f"ECE {percent(reliability.ece)}"
        write(panel, 0.065, 0.95 - 0.08 * i, label, INK, 11.5, va="center_baseline")
        captions.append(label)
    for axes in (panel, counts):
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(as_percent)
    panel.set_ylim(0, 1)
    panel.yaxis.set_major_formatter(as_percent)
    panel.tick_params(labelbottom=False)
    round_ticks(counts.yaxis, 3, integer=True)
    counts.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    name_axes(counts, "probability of the predicted class", "")
    write(panel, 0.99, 0.02, "accuracy", FAINT, 11, ha="right", transform=panel.transAxes)
    write(counts, 0.01, 0.84, "predictions", FAINT, 11, transform=counts.transAxes)
    return to_svg(figure, name, f"Reliability: {'; '.join(captions)}. The diagonal is perfect calibration.")


def signal_name(curve: RiskCoverage, *, scaled: bool) -> str:
    """Return the name of the score that orders the rows; ``scaled``: after temperature scaling."""
    return "probability after scaling" if scaled and curve.signal == "probability" else curve.signal


def draw_risk(curves: Sequence[RiskCoverage], *, scaled: bool) -> str:
    """Draw error rate against coverage; ``scaled`` is that of `signal_name`."""
    figure = make_chart(WIDTH, 300)
    panel = add_panel(figure, 48, 12, 14, 46)
    looks: tuple[tuple[str, Any], ...] = ((BLUE, "-"), (ORANGE, (0, (5, 2))), (FAINT, (0, (1, 1.5))))
    most = max(max(curve.risk) for curve in curves) or 0.01
    for i, (curve, (colour, line)) in enumerate(zip(curves, looks, strict=False)):
        points = np.unique(np.linspace(0, len(curve.coverage) - 1, MAX_POINTS).round().astype(int))
        panel.plot(
            np.array(curve.coverage)[points], np.array(curve.risk)[points], color=colour, linestyle=line, linewidth=1.8
        )
        y = 0.84 - 0.09 * i
        panel.plot([0.03, 0.1], [y, y], color=colour, linestyle=line, linewidth=1.8, transform=panel.transAxes)
        label = f"by {signal_name(curve, scaled=scaled)}: AURC {number(curve.area)}"
        write(panel, 0.12, y, label, INK, 11.5, va="center_baseline", transform=panel.transAxes)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1.45 * most)
    panel.xaxis.set_major_formatter(as_percent)
    panel.yaxis.set_major_formatter(as_percent)
    round_ticks(panel.yaxis)
    name_axes(panel, "coverage: share of rows answered, most certain first", "error rate")
    return to_svg(
        figure,
        "risk",
        "Error rate against coverage: "
        + "; ".join(
            f"by {signal_name(curve, scaled=scaled)}, area under the curve {number(curve.area)}" for curve in curves
        ),
    )


def draw_numbers(evaluation: EvaluationData) -> str | None:
    """Draw predicted against actual numbers of the best candidate; return None if it has no predictions."""
    table = evaluation.predictions
    table = table.filter(pc.equal(table["candidate"], evaluation.best.name))
    _, shown = np.unique(table["id"].to_numpy(zero_copy_only=False), return_index=True)
    shown = np.random.default_rng(0).permutation(shown)[:MAX_DOTS]
    if not len(shown):
        return None
    actual, predicted = (pc.cast(table[name], "float64").to_numpy()[shown] for name in ("actual", "predicted"))
    figure = make_chart(WIDTH, 380)
    panel = add_panel(figure, 48, 12, 14, 46)
    ends = [float(np.nanmin([actual, predicted])), float(np.nanmax([actual, predicted]))]
    panel.plot(ends, ends, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
    panel.plot(actual, predicted, "o", color=BLUE, markersize=4, alpha=0.45, markeredgewidth=0)
    for axis in (panel.xaxis, panel.yaxis):
        round_ticks(axis)
    name_axes(panel, f"actual {evaluation.label}", "predicted")
    title = f"Predicted against actual numbers of {len(shown):,} rows; on the diagonal both are equal."
    return to_svg(figure, "numbers", title)
