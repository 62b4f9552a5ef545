"""Charts of candidates with 95 % intervals, one row for each: metric, and paired difference from the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embedpipe.evaluation.comparison.evaluation_data import EvaluationData
from embedpipe.report.drawing.canvas import fit_text
from embedpipe.report.drawing.svg import (
    BLUE,
    FAINT,
    INK,
    PAPER,
    VERDICT_LOOKS,
    WIDTH,
    add_panel,
    as_percent,
    make_chart,
    name_axes,
    round_ticks,
    to_svg,
    write,
)
from embedpipe.report.drawing.wording import (
    SHARES,
    difference_unit,
    metric_difference,
    metric_interval,
    metric_name,
    metric_value,
    p_value,
)
from embedpipe.statistics import Estimate

#: Height of a row in pixels, and of the name at its top; the interval is below the name.
ROW, NAME = 40, 20
#: Width of the column of verdicts beside the axis, in pixels.
VERDICTS = 96
#: Largest number of candidates in a chart.
MAX_ROWS = 40


def draw_scores(evaluation: EvaluationData) -> str:
    """Draw the mean and the interval of each candidate, the best first, and the baseline."""
    metric, shown = evaluation.metric, evaluation.candidates[:MAX_ROWS]
    estimates = [candidate.estimates[metric] for candidate in shown]
    baseline = evaluation.baseline.get(metric, math.nan)
    figure, panel = _rows(len(shown), metric_name(evaluation.metric, evaluation.higher_is_better))
    low, high = _ends(estimates)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    wide = [low - margin, high + margin]
    words = f"baseline {metric_value(baseline, metric, high)}"
    if math.isfinite(baseline):
        if max(high, baseline) - min(low, baseline) < 2.5 * (high - low):  # otherwise intervals would shrink to dots
            wide = [min(wide[0], baseline - margin), max(wide[1], baseline + margin)]
            tops, bottoms = _beside_names(len(shown))
            panel.vlines([baseline] * len(shown), tops, bottoms, color=FAINT, linewidth=1.4, linestyle=(0, (4, 2)))
        else:
            words = f"◂ {words}, off the scale" if baseline < low else f"{words}, off the scale ▸"
        left = baseline < (low + high) / 2
        x, side = (0.0, "left") if left else (1.0, "right")
        write(panel, x, -8, words, FAINT, 11, ha=side, transform=panel.get_yaxis_transform())
    panel.set_xlim(*wide)
    if metric in SHARES:
        panel.xaxis.set_major_formatter(as_percent)
    for i, (candidate, estimate) in enumerate(zip(shown, estimates, strict=True)):
        text, verdict = _interval(estimate, metric), candidate.verdict
        _row(panel, i, f"{i + 1}  {candidate.name}", 6.6 * len(text) + 16, estimate, verdict)
        write(panel, 1, i * ROW + 15, text, FAINT, 11, ha="right", transform=panel.get_yaxis_transform(), zorder=3)
    first = zip(shown[:5], estimates, strict=False)
    title = (
        f"{metric_name(metric)} of {len(shown)} candidates with 95 % intervals, the best first; {words}: "
        f"{'; '.join(f'{each.name[:80]} {_interval(at, metric)}' for each, at in first)}"
    )
    return to_svg(figure, "scores", title)


def draw_differences(evaluation: EvaluationData) -> str:
    """Draw the paired difference of each candidate from the best, and the region of practical equivalence."""
    shown = [(i, each, each.difference) for i, each in enumerate(evaluation.candidates[:MAX_ROWS]) if each.difference]
    metric, unit = metric_name(evaluation.metric), difference_unit(evaluation.metric)
    in_points = f" ({unit})" if unit != metric else ""
    figure, panel = _rows(len(shown), f"difference from the best in {metric}{in_points}", VERDICTS)
    if evaluation.metric in SHARES:
        panel.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}".replace("-", "\N{MINUS SIGN}"))
    margin = evaluation.margin
    low, high = _ends([difference.estimate for _, _, difference in shown])
    low, high = min(low, -1.5 * margin, 0), max(high, 1.5 * margin, 0)
    room = 0.05 * (high - low) or 1.0
    panel.set_xlim(low - room, high + room)
    tops, bottoms = _beside_names(len(shown))
    panel.bar(0, ROW - NAME, 2 * margin, tops, color=BLUE, alpha=0.14, linewidth=0)
    panel.vlines([0] * len(shown), tops, bottoms, color=INK, linewidth=1)
    worse = ("◂ worse", "better ▸") if evaluation.higher_is_better else ("◂ better", "worse ▸")
    for x, word, side in zip((0.0, 1.0), worse, ("left", "right"), strict=True):
        write(panel, x, -8, word, FAINT, 11, ha=side, transform=panel.get_yaxis_transform())
    for row, (i, candidate, difference) in enumerate(shown):
        verdict = difference.verdict
        _row(panel, row, f"{i + 1}  {candidate.name}", 0, difference.estimate, verdict)
        for y, text in ((15, f"{VERDICT_LOOKS[verdict][2]} {verdict}"), (33, f"p {_relation(difference.adjusted)}")):
            write(panel, 1.05, row * ROW + y, text, FAINT, 11, transform=panel.get_yaxis_transform())
    title = (
        f"Paired differences in {metric} from {evaluation.best.name[:80]} with 95 % intervals; practically equivalent "
        f"between {metric_difference(-margin, evaluation.metric)} and {metric_difference(margin, evaluation.metric)}"
        f"{in_points}: "
        + "; ".join(
            f"{each.name[:80]} {_difference(against.estimate, evaluation.metric)}, {against.verdict}"
            for _, each, against in shown[:5]
        )
    )
    return to_svg(figure, "differences", title)


def _rows(count: int, name: str, right: int = 0) -> tuple[Figure, Axes]:
    """Return axes with ``count`` rows, y in pixels from the top, and ``right`` pixels free at the right."""
    figure = make_chart(WIDTH, count * ROW + 74)
    panel = add_panel(figure, 6, 26, 6 + right, 48)
    panel.set_ylim(count * ROW, 0)
    panel.set_yticks([])
    round_ticks(panel.xaxis, 4 if right else 6)
    name_axes(panel, name, "")
    return figure, panel


def _beside_names(count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return top and bottom of the interval of each row, so that background lines do not cross the names."""
    tops = np.arange(count) * ROW
    return tops + NAME, tops + ROW


def _row(panel: Axes, row: int, name: str, taken: float, at: Estimate, verdict: str) -> None:
    """Draw name, interval and mean of one candidate; ``taken`` pixels of the width are not free for the name."""
    colour, marker, _ = VERDICT_LOOKS[verdict]
    across, top = panel.get_yaxis_transform(), row * ROW
    weight = "bold" if verdict == "best" else "normal"
    wide = panel.get_position().width * WIDTH - taken
    name = fit_text(name, wide, 12 * 0.72, weight)  # canvas has 100 pixels per inch, SVG 72
    write(panel, 0, top + 15, name, INK, 12, weight=weight, transform=across, zorder=3)
    y = top + 30
    panel.plot([at.low, at.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
    panel.plot(at.value, y, marker, color=colour, markersize=15 if marker == "*" else 8, markeredgecolor=PAPER)


def _ends(estimates: Sequence[Estimate]) -> tuple[float, float]:
    ends = np.array([(at.value, at.low, at.high) for at in estimates])
    ends = ends[np.isfinite(ends)]
    return (float(ends.min()), float(ends.max())) if ends.size else (0.0, 1.0)


def _interval(at: Estimate, metric: str) -> str:
    return f"{metric_value(at.value, metric)} [{metric_interval(at.low, at.high, metric, at.value)}]"


def _difference(at: Estimate, metric: str) -> str:
    value, low, high = (metric_difference(end, metric, at.value) for end in (at.value, at.low, at.high))
    return f"{value} [{low} to {high}]"


def _relation(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"
