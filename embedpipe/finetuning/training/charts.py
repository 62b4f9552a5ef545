"""The charts of a training that is watched: its losses and its validation accuracy over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from embedpipe.finetuning.result import Epoch
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
    scale_shares,
    to_svg,
    write,
)
from embedpipe.report.drawing.wording import number, percent

HEIGHT = 330
#: Up to so many epochs each has a mark of its own.
MARKED = 30
DASHES: Any = (0, (5, 2))


def draw_losses(epochs: Sequence[Epoch]) -> str:
    """Draw the training loss and the validation log-loss over epochs; the first is not known before training."""
    figure, panel = _make_panel(epochs)
    trained = [epoch for epoch in epochs if epoch.training_loss is not None]
    losses = [epoch.training_loss for epoch in trained]
    triangle, disc = ("^", "o") if len(epochs) <= MARKED else ("", "")
    _plot(panel, [epoch.number for epoch in trained], losses, ORANGE, triangle, DASHES)
    _plot(panel, [epoch.number for epoch in epochs], [epoch.log_loss for epoch in epochs], BLUE, disc, "-")
    panel.margins(y=0.1)
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    _write_legend(figure, [("validation log-loss", BLUE, disc, "-"), ("training loss", ORANGE, triangle, DASHES)])
    last = epochs[-1]
    training = "" if last.training_loss is None else f", training loss {number(last.training_loss)}"
    title = f"Losses over epochs: at epoch {last.number} validation log-loss {number(last.log_loss)}{training}"
    return to_svg(figure, "losses", title)


def draw_accuracy(epochs: Sequence[Epoch], best: Epoch, told: str) -> str:
    """Draw the validation accuracy over epochs, the best one marked, and that of the probe, which epoch 0 is.

    Parameters
    ----------
    epochs : sequence of Epoch
        From epoch 0 on.
    best : Epoch
        The one to mark.
    told : str
        What the mark is, in a word or two.
    """
    figure, panel = _make_panel(epochs)
    panel.axhline(epochs[0].accuracy, color=INK, linestyle=DASHES, linewidth=1.6)
    disc = "o" if len(epochs) <= MARKED else ""
    _plot(panel, [epoch.number for epoch in epochs], [epoch.accuracy for epoch in epochs], BLUE, disc, "-")
    panel.plot(best.number, best.accuracy, "D", color=ORANGE, markersize=9, markeredgecolor=PAPER, zorder=5)
    scale_shares(panel)
    _write_legend(figure, [("network", BLUE, disc, "-"), ("probe", INK, "", DASHES), (told, ORANGE, "D", "none")])
    title = (
        f"Validation accuracy over epochs: from {percent(epochs[0].accuracy)}, the probe's, to "
        f"{percent(epochs[-1].accuracy)} at epoch {epochs[-1].number}; {told}: epoch {best.number}, "
        f"{percent(best.accuracy)}"
    )
    return to_svg(figure, "accuracy", title)


def _make_panel(epochs: Sequence[Epoch]) -> tuple[Figure, Axes]:
    figure = make_chart(WIDTH, HEIGHT)
    panel = add_panel(figure, 48, 34, 14, 46)
    last = max(epochs[-1].number, 1)
    panel.set_xlim(-0.04 * last, 1.04 * last)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    name_axes(panel, "epoch (0: before training)", "")
    return figure, panel


def _plot(panel: Axes, xs: Sequence[float], ys: Sequence[Any], colour: str, marker: str, line: Any) -> None:
    looks: dict[str, Any] = {"markersize": 7, "markeredgecolor": PAPER, "linewidth": 1.8}
    panel.plot(xs, ys, color=colour, marker=marker, linestyle=line, **looks)


def _write_legend(figure: Figure, keys: Sequence[tuple[str, str, str, Any]]) -> None:
    strip = add_strip(figure)
    for i, (name, colour, marker, line) in enumerate(keys):
        x = 12 + i * (WIDTH - 16) / len(keys)
        _plot(strip, [x, x + 15, x + 30], [14, 14, 14], colour, "", line)
        _plot(strip, [x + 15], [14], colour, marker, "none")
        write(strip, x + 36, 14, name, INK, 12, va="center_baseline")
