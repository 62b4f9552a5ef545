"""A training as one HTML page that is written anew after each epoch, and reloads itself while the training goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.finetuning.result import Epoch, FineTuneResult
from embedpipe.finetuning.training.charts import draw_accuracy, draw_losses
from embedpipe.report.drawing.wording import points
from embedpipe.report.page import check_page, write_page

#: Seconds after which an open page of a training that goes on is read again.
RELOAD = 5
#: Epochs whose speed says what the rest will take.
RECENT = 5


def write_training(
    epochs: Sequence[Epoch],
    to: str | Path,
    *,
    finished: bool,
    planned: int,
    name: str = "",
    found: FineTuneResult | None = None,
) -> Path:
    """Write how a training goes as one HTML page, readable without a network and below 3 MB.

    Parameters
    ----------
    epochs : sequence of Epoch
        All so far, from epoch 0 on.
    to : str or path-like
        The page to write, atomically; its name ends in .html. Folders on the way are made.
    finished : bool
        Whether no more epochs come: as long as some do, an open page reads itself again.
    planned : int
        Epochs at most, if it does not stop early.
    name : str
        What is trained on, for the page's title.
    found : FineTuneResult, optional
        What it came to; None as long as that is not known, or where it was stopped.

    Returns
    -------
    pathlib.Path
        ``to``.

    Raises
    ------
    UsageError
        If the name of the page is of another kind, or there is no epoch to show.
    """
    to = check_page(to)
    if not epochs:
        raise UsageError("the training has no epochs: there is nothing to show")
    return write_page("training.html", _facts(epochs, finished, planned, name, found), to)


@contextmanager
def follow_training(to: str | Path, *, planned: int, name: str = "") -> Iterator[Callable[[Sequence[Epoch]], None]]:
    """Yield what `embedpipe.finetune` calls as ``on_epoch``: it writes the page anew.

    Where the block ends by an error or is interrupted, the page says that the training has stopped. Where it ends well,
    the last page is left to who knows the result. The arguments are those of `write_training`.
    """
    seen: list[Epoch] = []

    def on_epoch(epochs: Sequence[Epoch]) -> None:
        seen[:] = epochs
        try:
            write_training(seen, to, finished=False, planned=planned, name=name)
        except OSError as error:  # a training is worth more than its page
            print(f"embedpipe: the page could not be written: {error}", file=sys.stderr)

    check_page(to)
    try:
        yield on_epoch
    except BaseException:
        if seen:
            write_training(seen, to, finished=True, planned=planned, name=name)
        raise


def _facts(
    epochs: Sequence[Epoch], finished: bool, planned: int, name: str, found: FineTuneResult | None
) -> dict[str, Any]:
    """Return what the template shows."""
    now = datetime.now().astimezone()
    zero, last = epochs[0], epochs[-1]
    best = _best(epochs) if found is None else next(one for one in epochs if one.number == found.best)
    told = "highest" if found is None else "kept"
    left = None if finished else _seconds_left(epochs, planned)
    return {
        "epochs": epochs,
        "zero": zero,
        "last": last,
        "best": best,
        "told": told,
        "reload": None if finished else RELOAD,
        "planned": planned,
        "data": Path(name).name or name,
        "found": found,
        "losses": draw_losses(epochs),
        "accuracies": draw_accuracy(epochs, best, told),
        "speed": last.images / last.seconds if last.images and last.seconds else None,
        "seconds": sum(epoch.seconds for epoch in epochs),
        "left": left,
        "until": None if left is None else _clock(now, now + timedelta(seconds=left)),
        "points": points,
        "version": __version__,
        "now": now,
    }


def _best(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the highest accuracy, and among equals the smallest log-loss."""
    return max(epochs, key=lambda epoch: (epoch.accuracy, -epoch.log_loss))


def _seconds_left(epochs: Sequence[Epoch], planned: int) -> float | None:
    """Return what the rest takes if it does not stop early; None before the first epoch, which says how long one is."""
    recent = [epoch.seconds for epoch in epochs if epoch.images][-RECENT:]
    return max(planned - epochs[-1].number, 0) * sum(recent) / len(recent) if recent else None


def _clock(now: datetime, then: datetime) -> str:
    return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M")
