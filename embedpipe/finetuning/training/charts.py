"""The charts of a fine-tuning run: losses and validation accuracy over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.report.drawing.svg import (
    BLUE,
    INK,
    ORANGE,
    PAPER,
    WIDTH,
    add_panel,
    add_strip,
    make_chart,
    name_axes,
    round_ticks,
    scale_shares,
    to_svg,
    write,
)
from embedpipe.report.drawing.wording import number, percent

HEIGHT = 330
#: Largest number of epochs that are drawn with markers.
MAX_MARKERS = 30
DASHES: Any = (0, (5, 2))


def draw_losses(epochs: Sequence[Epoch]) -> str:
    """Draw the training loss and the validation log-loss over epochs; epoch 0 has no training loss."""
    figure, panel = _make_panel(epochs)
    trained = [epoch for epoch in epochs if epoch.training_loss is not None]
    losses = [epoch.training_loss for epoch in trained]
    triangle, disc = ("^", "o") if len(epochs) <= MAX_MARKERS else ("", "")
    _plot(panel, [epoch.number for epoch in trained], losses, ORANGE, triangle, DASHES)
    _plot(panel, [epoch.number for epoch in epochs], [epoch.validation_log_loss for epoch in epochs], BLUE, disc, "-")
    panel.margins(y=0.1)
    round_ticks(panel.yaxis)
    _write_legend(figure, [("validation log-loss", BLUE, disc, "-"), ("training loss", ORANGE, triangle, DASHES)])
    last = epochs[-1]
    training = "" if last.training_loss is None else f", training loss {number(last.training_loss)}"
    title = (
        f"Losses over epochs: at epoch {last.number} validation log-loss {number(last.validation_log_loss)}{training}"
    )
    return to_svg(figure, "losses", title)


def draw_accuracy(epochs: Sequence[Epoch], best: Epoch, best_label: str) -> str:
    """Draw the validation accuracy over epochs with one epoch marked, and that of the linear probe, which is epoch 0.

    Parameters
    ----------
    epochs : sequence of Epoch
        From epoch 0 on.
    best : Epoch
        The epoch to mark.
    best_label : str
        Name of the mark in the legend.
    """
    figure, panel = _make_panel(epochs)
    panel.axhline(epochs[0].validation_accuracy, color=INK, linestyle=DASHES, linewidth=1.6)
    disc = "o" if len(epochs) <= MAX_MARKERS else ""
    _plot(panel, [epoch.number for epoch in epochs], [epoch.validation_accuracy for epoch in epochs], BLUE, disc, "-")
    panel.plot(best.number, best.validation_accuracy, "D", color=ORANGE, markersize=9, markeredgecolor=PAPER, zorder=5)
    scale_shares(panel)
    _write_legend(
        figure, [("network", BLUE, disc, "-"), ("linear probe", INK, "", DASHES), (best_label, ORANGE, "D", "none")]
    )
    title = (
        f"Validation accuracy over epochs: from {percent(epochs[0].validation_accuracy)}, the linear probe, to "
        f"{percent(epochs[-1].validation_accuracy)} at epoch {epochs[-1].number}; {best_label}: epoch {best.number}, "
        f"{percent(best.validation_accuracy)}"
    )
    return to_svg(figure, "accuracy", title)


def _make_panel(epochs: Sequence[Epoch]) -> tuple[Figure, Axes]:
    figure = make_chart(WIDTH, HEIGHT)
    panel = add_panel(figure, 48, 34, 14, 46)
    last = max(epochs[-1].number, 1)
    panel.set_xlim(-0.04 * last, 1.04 * last)
    round_ticks(panel.xaxis, integer=True)
    name_axes(panel, "epoch (0: before training)", "")
    return figure, panel


def _plot(panel: Axes, xs: Sequence[float], ys: Sequence[Any], colour: str, marker: str, line: Any) -> None:
    style: dict[str, Any] = {"markersize": 7, "markeredgecolor": PAPER, "linewidth": 1.8}
    panel.plot(xs, ys, color=colour, marker=marker, linestyle=line, **style)


def _write_legend(figure: Figure, keys: Sequence[tuple[str, str, str, Any]]) -> None:
    strip = add_strip(figure)
    for i, (name, colour, marker, line) in enumerate(keys):
        x = 12 + i * (WIDTH - 16) / len(keys)
        _plot(strip, [x, x + 15, x + 30], [14, 14, 14], colour, "", line)
        _plot(strip, [x + 15], [14], colour, marker, "none")
        write(strip, x + 36, 14, name, INK, 12, va="center_baseline")
