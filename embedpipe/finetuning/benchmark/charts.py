"""Charts of a benchmark: accuracy over labels and training time, over epochs, and on corrupted images."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.benchmark_data import SEEDS_FOR_INTERVALS, BenchmarkData, Cell, Learner
from embedpipe.finetuning.benchmark.paired_runs import SeedMean
from embedpipe.finetuning.split_rows import SHIFTED
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.report.drawing import canvas
from embedpipe.report.drawing.colours import PALETTE
from embedpipe.report.drawing.picture import Picture
from embedpipe.report.drawing.svg import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PALE,
    PAPER,
    WIDTH,
    add_panel,
    add_strip,
    browser_width,
    log_ticks,
    make_chart,
    name_axes,
    round_ticks,
    scale_shares,
    to_svg,
    write,
)
from embedpipe.report.drawing.wording import percent
from embedpipe.statistics import Estimate, share_interval

Floats = npt.NDArray[np.float64]
#: Ink, marker and line style of each learner, so that they differ by more than colour, and a description.
LOOKS: dict[Learner, tuple[str, str, Any, str]] = {
    "linear-probe": ("ink", "s", (0, (5, 2)), "linear head on frozen features"),
    "lp-ft": ("blue", "o", "-", "fine-tuned from the linear probe"),
    "finetune": ("orange", "^", (0, (7, 1.5, 1.5, 1.5)), "fine-tuned from a random head"),
    "contrastive": ("blue", "D", (0, (2, 1.5)), "texts of a class brought together"),
    "scratch": ("faint", "X", (0, (1, 1.5)), "trained from random weights"),
}
#: Inks on a page, whose style sheet gives the colours, and in a PNG file.
ON_PAGE = {"ink": INK, "faint": FAINT, "pale": PALE, "paper": PAPER, "blue": BLUE, "orange": ORANGE}
IN_PICTURE = {
    "ink": canvas.INK,
    "faint": canvas.FAINT,
    "pale": canvas.PALE,
    "paper": canvas.PAPER,
    "blue": PALETTE[0],
    "orange": PALETTE[1],
}
#: Ticks of a time axis, in seconds.
TIMES = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 36_000, 86_400, 259_200)
#: Width and height of the PNG file, in pixels.
PNG_SIZE = (1120, 760)


@dataclass(frozen=True)
class Mean:
    """Mean accuracy of a learner at one number of labels; ``interval`` is None below three seeds."""

    labels: int
    cells: list[Cell]
    value: float
    interval: Estimate | None

    @property
    def seconds(self) -> float:
        """Mean training time."""
        return float(np.mean([cell.seconds for cell in self.cells]))


def mean_curve(benchmark: BenchmarkData, learner: Learner) -> list[Mean]:
    """Return the mean accuracy of a learner at each number of labels, in ascending order.

    The 95 % intervals cover other seeds and other test rows, as those of `judge` do.
    """
    groups = {labels: cells for labels in benchmark.label_counts if (cells := benchmark.cells_of(learner, labels))}
    values = {labels: np.array([cell.accuracy for cell in cells]) for labels, cells in groups.items()}
    freedom = sum(len(each) - 1 for each in values.values())
    pooled = sum(float(((each - each.mean()) ** 2).sum()) for each in values.values()) / max(freedom, 1)
    return [
        Mean(
            labels, cells, float(values[labels].mean()), _interval(values[labels], pooled, freedom, benchmark.test_rows)
        )
        for labels, cells in groups.items()
    ]


def largest_label_count(benchmark: BenchmarkData, has: Callable[[Cell], object] = bool) -> int | None:
    """Return the largest number of labels of the cells for which ``has`` is true; None if there are none."""
    return max((cell.labels for cell in benchmark.cells if has(cell)), default=None)


def kept_epoch(cell: Cell) -> Epoch:
    """Return the epoch whose weights were kept."""
    return next(epoch for epoch in cell.epochs if epoch.number == cell.best_epoch)


def draw_accuracy(benchmark: BenchmarkData, over: Literal["labels", "seconds"]) -> str | None:
    """Draw accuracy on the test rows over labels or training time, as SVG; None if no time was measured."""
    figure = make_chart(WIDTH, 390)
    panel = add_panel(figure, 48, 34, 14, 46)
    shown = _plot_curves(panel, benchmark, over, ON_PAGE)
    if not shown:
        return None
    _write_legend(figure, shown, ON_PAGE)
    name_axes(panel, "labels (log scale)" if over == "labels" else "training time of one run (log scale)", "")
    write(panel, 0.99, 0.02, "accuracy on test rows", FAINT, 11, ha="right", transform=panel.transAxes)
    title = f"Accuracy over {'labels' if over == 'labels' else 'training time'}: " + "; ".join(
        f"{learner} " + ", ".join(f"{percent(mean.value)} at {mean.labels:,} labels" for mean in means)
        for learner, means in shown.items()
    )
    return to_svg(figure, f"accuracy-{over}", title)


def draw_training(benchmark: BenchmarkData, labels: int) -> str:
    """Draw validation accuracy over epochs at one number of labels, as SVG: seeds thin, means thick."""
    figure = make_chart(WIDTH, 330)
    panel = add_panel(figure, 48, 34, 14, 46)
    shown: dict[Learner, str] = {}
    for learner in benchmark.learners:
        cells = benchmark.cells_of(learner, labels)
        ink, marker, line, _ = LOOKS[learner]
        trained = [cell for cell in cells if cell.epochs]
        for cell in trained:
            numbers = [epoch.number for epoch in cell.epochs]
            panel.plot(
                numbers,
                [epoch.validation_accuracy for epoch in cell.epochs],
                color=ON_PAGE[ink],
                linewidth=0.9,
                alpha=0.4,
            )
            kept = kept_epoch(cell)
            panel.plot(
                kept.number, kept.validation_accuracy, marker, color=ON_PAGE[ink], markersize=6.5, markeredgecolor=PAPER
            )
        if trained:
            shortest = min(len(cell.epochs) for cell in trained)
            means = np.mean(
                [[epoch.validation_accuracy for epoch in cell.epochs[:shortest]] for cell in trained], axis=0
            )
            panel.plot(range(shortest), means, color=ON_PAGE[ink], linestyle=line, linewidth=2)
            shown[learner] = f"{learner} from {percent(means[0])} to {percent(means[-1])} in {shortest - 1} epochs"
        elif cells:
            height = float(np.mean([cell.initial_accuracy for cell in cells]))
            panel.axhline(height, color=ON_PAGE[ink], linestyle=line, linewidth=1.6)
            shown[learner] = f"{learner} {percent(height)}"
    round_ticks(panel.xaxis, integer=True)
    scale_shares(panel)
    _write_legend(figure, shown, ON_PAGE)
    name_axes(panel, "epoch (0: before training)", "")
    write(panel, 0.99, 0.02, "accuracy on validation rows", FAINT, 11, ha="right", transform=panel.transAxes)
    return to_svg(figure, "training", f"Validation accuracy over epochs at {labels:,} labels: {_listed(shown)}")


def draw_robustness(benchmark: BenchmarkData, labels: int) -> str:
    """Draw mean accuracy over corruptions by severity at one number of labels, as SVG; ``none`` is uncorrupted."""
    figure = make_chart(WIDTH, 330)
    panel = add_panel(figure, 48, 34, 14, 46)
    severities = np.array([0, *benchmark.severities], float)
    shown: dict[Learner, str] = {}
    measured = {learner: severity_curves(benchmark.cells_of(learner, labels)) for learner in benchmark.learners}
    measured = {learner: curves for learner, curves in measured.items() if len(curves)}
    for i, (learner, curves) in enumerate(measured.items()):
        ink, marker, line, _ = LOOKS[learner]
        xs, mean = severities + 0.016 * severities[-1] * (i - (len(measured) - 1) / 2), curves.mean(axis=0)
        panel.plot(xs, mean, color=ON_PAGE[ink], linestyle=line, linewidth=1.8)
        for x, values, value in zip(xs, curves.T, mean, strict=True):
            _plot_seeds(panel, x, values, ON_PAGE[ink])
            panel.plot(x, value, marker, color=ON_PAGE[ink], markersize=7, markeredgecolor=PAPER)
        shown[learner] = f"{learner} " + ", ".join(percent(value) for value in mean)
    panel.set_xticks(severities, ["none", *(str(severity) for severity in benchmark.severities)])
    scale_shares(panel)
    _write_legend(figure, shown, ON_PAGE)
    name_axes(panel, "severity of corruption", "")
    write(panel, 0.99, 0.93, "accuracy on test rows", FAINT, 11, ha="right", transform=panel.transAxes)
    title = f"Accuracy by severity (none, {', '.join(map(str, benchmark.severities))}) at {labels:,} labels: "
    return to_svg(figure, "robustness", title + _listed(shown))


def severity_curves(cells: Iterable[Cell]) -> Floats:
    """Return for each cell with corruptions its test accuracy and its mean accuracy at each severity."""
    curves = []
    for cell in cells:
        if corrupted := [accuracies for name, accuracies in cell.shifted.items() if name != SHIFTED]:
            curves.append([cell.accuracy, *np.mean(corrupted, axis=0)])
    return np.array(curves, float)


def draw_curves(benchmark: BenchmarkData, path: str | Path) -> Picture:
    """Draw the learning curves as a PNG file; see `Benchmark.plot`."""
    path = canvas.check_png(path, "a picture of learning curves")
    if not benchmark.cells:
        raise UsageError("a picture needs at least one cell, and this benchmark has none")
    figure = canvas.make_figure(*PNG_SIZE)
    wide, high = (72 * float(size) for size in figure.get_size_inches())
    panel = add_panel(figure, 70, 142, 36, 76)
    panel.grid(color=IN_PICTURE["pale"])
    panel.tick_params(labelcolor=IN_PICTURE["faint"])
    shown = _plot_curves(panel, benchmark, "labels", IN_PICTURE)
    _write_legend(figure, shown, IN_PICTURE, below=96, described=True)
    panel.set_xlabel("labels (log scale)", color=IN_PICTURE["faint"], fontsize=12, labelpad=10)
    seeds, legend = "1 seed", "Accuracy on test rows. One seed: no intervals."
    if len(benchmark.seeds) > 1:
        seeds = f"{len(benchmark.seeds)} seeds"
        intervals = ", with 95 % intervals" if len(benchmark.seeds) >= SEEDS_FOR_INTERVALS else ""
        legend = f"Accuracy on test rows. Marks: means over the seeds{intervals}. Dashes: seeds."
    facts = (benchmark.backbone, benchmark.device, seeds, f"{benchmark.test_rows:,} test rows")
    for y, text, size, ink in (
        (34, f"Accuracy over labels: {Path(benchmark.data).name or benchmark.data}", 16, "ink"),
        (60, "  ·  ".join(facts), 10.5, "faint"),
        (high - 15, legend, 9, "faint"),
    ):
        weight = "bold" if ink == "ink" else "normal"
        text = canvas.fit_text(text, (wide - 60) * canvas.DPI / 72, size, weight)
        figure.text(30 / wide, 1 - y / high, text, fontsize=size, color=IN_PICTURE[ink], weight=weight,
                    family=canvas.font_families(), parse_math=False, va="center_baseline")  # fmt: skip
    return canvas.save_figure(figure, path)


def _interval(values: Floats, pooled: float, freedom: int, rows: int) -> Estimate | None:
    if len(values) < SEEDS_FOR_INTERVALS:
        return None
    share, low, high = share_interval(min(rows, round(float(values.mean()) * rows)), rows)
    variance = max(pooled, float(values.var(ddof=1)))
    at = SeedMean(float(values.mean()), len(values), variance, freedom, share - low, high - share).interval()
    return Estimate(at.value, max(0.0, at.low), min(1.0, at.high))


def _plot_curves(
    panel: Axes, benchmark: BenchmarkData, over: Literal["labels", "seconds"], inks: Mapping[str, str]
) -> dict[Learner, list[Mean]]:
    """Draw each learner's means, intervals and seeds; return the means that were drawn."""
    shown = {learner: mean_curve(benchmark, learner) for learner in benchmark.learners}
    if over == "seconds":  # the axis is logarithmic
        shown = {learner: [mean for mean in means if mean.seconds > 0] for learner, means in shown.items()}
    shown = {learner: means for learner, means in shown.items() if means}
    places = [float(getattr(mean, over)) for means in shown.values() for mean in means]
    if not places:
        return {}
    span = math.log(max(places) / min(places)) or 1.0
    for i, (learner, means) in enumerate(shown.items()):
        ink, marker, line, _ = LOOKS[learner]
        # side by side, so that intervals do not overlap
        offset = math.exp(0.018 * span * (i - (len(shown) - 1) / 2)) if over == "labels" else 1.0
        xs = [offset * getattr(mean, over) for mean in means]
        panel.plot(xs, [mean.value for mean in means], color=inks[ink], linestyle=line, linewidth=1.8)
        for x, mean in zip(xs, means, strict=True):
            if mean.interval:
                ends = [mean.interval.low, mean.interval.high]
                panel.plot([x, x], ends, color=inks[ink], linewidth=1.3, alpha=0.55)
            _plot_seeds(panel, x, [cell.accuracy for cell in mean.cells], inks[ink])
            panel.plot(x, mean.value, marker, color=inks[ink], markersize=7, markeredgecolor=inks["paper"])
    panel.set_xscale("log")
    panel.minorticks_off()
    room = math.exp(0.06 * span)
    panel.set_xlim(min(places) / room, max(places) * room)
    ticks = sorted(set(places)) if over == "labels" else [t for t in TIMES if min(places) <= t <= max(places)]
    ticks = _thin_out(ticks or log_ticks(min(places) / room, max(places) * room), span)
    panel.set_xticks(ticks, [f"{tick:,.0f}" if over == "labels" else _time(tick) for tick in ticks])
    scale_shares(panel)
    return shown


def _plot_seeds(panel: Axes, x: float, values: Iterable[float], ink: str) -> None:
    """Draw a dash for each seed, longer than the mark of the mean, so that the mark does not hide it."""
    for value in values:
        panel.plot(x, value, "_", color=ink, markersize=12, markeredgewidth=1, alpha=0.7)


def _thin_out(ticks: Sequence[float], wide: float) -> list[float]:
    """Return the largest tick, and smaller ones with enough room between them on a logarithmic axis."""
    kept: list[float] = []
    for tick in reversed(ticks):
        if not kept or math.log(kept[-1] / tick) >= 0.12 * wide:
            kept.append(tick)
    return kept[::-1]


def _time(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _write_legend(
    figure: Figure,
    learners: Collection[Learner],
    inks: Mapping[str, str],
    *,
    below: float = 14,
    described: bool = False,
) -> None:
    """Write the learners in a row ``below`` points under the top, each with its marker and line."""
    strip = add_strip(figure)
    wide = float(strip.get_xlim()[1])
    places = [30 + i * (wide - 40) / len(LOOKS) for i in range(len(LOOKS))]
    if not described:  # as wide as the names are
        widths = [36 + browser_width(learner, 12) for learner in learners]
        apart = min(30.0, (wide - 20 - sum(widths)) / max(1, len(widths) - 1))
        places = [12 + sum(widths[:i]) + i * apart for i in range(len(widths))]
    for x, learner in zip(places, learners, strict=False):
        ink, marker, line, description = LOOKS[learner]
        strip.plot([x, x + 30], [below, below], color=inks[ink], linestyle=line, linewidth=1.8)
        strip.plot(x + 15, below, marker, color=inks[ink], markersize=7, markeredgecolor=inks["paper"])
        write(strip, x + 36, below, learner, inks["ink"], 12, va="center_baseline")
        if described:
            write(strip, x, below + 18, description, inks["faint"], 9.5, va="center_baseline")


def _listed(shown: Mapping[Learner, str]) -> str:
    return "; ".join(shown.values())
