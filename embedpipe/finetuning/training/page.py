"""The page of a fine-tuning run: learning curves after each epoch, and the test accuracy at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.finetuning.training.charts import draw_accuracy, draw_losses
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.report.drawing.wording import points
from embedpipe.report.page import check_page, write_page

#: Latest epochs from which the remaining time is estimated.
RECENT_EPOCHS = 5


def write_training_page(
    path: str | Path,
    epochs: Sequence[Epoch],
    planned: int,
    name: str,
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Write the epochs of a run as one HTML page, below 3 MB, that loads nothing from the network.

    Parameters
    ----------
    path : str or path-like
        An .html file, which is written atomically. Missing folders are made.
    epochs : sequence of Epoch
        All epochs so far, from epoch 0 on.
    planned : int
        Number of epochs if the run does not stop early.
    name : str
        Name of the run, for the title.
    result : mapping, optional
        `FineTuneResult.to_dict` of the finished run; None while it is training.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    UsageError
        If the name of the file does not end in .html, or there are no epochs.
    """
    path = check_page(path)
    if not epochs:
        raise UsageError("the page of a run needs at least one epoch, got none")
    return _write(path, epochs, planned, name, result)


def _write(
    path: Path, epochs: Sequence[Epoch], planned: int, name: str, result: Mapping[str, Any] | None = None
) -> Path:
    first, last = epochs[0], epochs[-1]
    best = _best_epoch(epochs) if result is None else next(e for e in epochs if e.number == result["best_epoch"])
    best_label = "best so far" if result is None else "kept"
    context = {
        "epochs": epochs,
        "first": first,
        "last": last,
        "best": best,
        "best_label": best_label,
        "planned": planned,
        "data": name,
        "result": result,
        "losses": draw_losses(epochs),
        "accuracies": draw_accuracy(epochs, best, best_label),
        "speed": last.items / last.seconds if last.items and last.seconds else None,
        "seconds": sum(epoch.seconds for epoch in epochs),
        "seconds_left": None if result else _estimate_seconds_left(epochs, planned),
        "points": points,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("training.html", context, path)


def page_writer(path: str | Path, planned: int, name: str) -> Callable[[Sequence[Epoch]], None]:
    """Return a function for ``on_epoch`` of `embedpipe.finetune` that writes the page after each epoch.

    The arguments are those of `write_training_page`. A page that cannot be written any more is reported on standard
    error, and does not stop the training.
    """
    path = check_page(path)

    def write(epochs: Sequence[Epoch]) -> None:
        try:
            _write(path, epochs, planned, name)
        except OSError as error:
            print(f"embedpipe: cannot write the page {str(path)!r}: {error}", file=sys.stderr)

    return write


def _best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the highest validation accuracy; of equals, the one with the lowest log-loss."""
    return max(epochs, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_log_loss))


def _estimate_seconds_left(epochs: Sequence[Epoch], planned: int) -> float | None:
    """Return the time of the remaining epochs without early stopping; None before the first epoch."""
    recent = [epoch.seconds for epoch in epochs if epoch.items][-RECENT_EPOCHS:]
    return max(planned - epochs[-1].number, 0) * sum(recent) / len(recent) if recent else None
