"""Progress of long steps: a bar on a terminal or in a notebook, else a line after two seconds and then every ten.

While an `EventLog` is open, there are events in the place of both.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from embedpipe._utils.messages.events import current_log
from embedpipe._utils.notebook.progress_bar import CellOutput, notebook_shell
from embedpipe._utils.notebook.step_count import StepCount, speed


class Advance(Protocol):
    """Called with the number of items that were finished since the last call."""

    def __call__(self, count: int = 1) -> None:
        """Advance by ``count`` items."""


def uncounted(count: int = 1) -> None:
    """Advance nothing."""


class Progress:
    """Shows named steps on standard error, or below the cell of a notebook.

    Parameters
    ----------
    show : bool, optional
        None shows a bar in a notebook or if standard error is a terminal, and nothing otherwise. True shows plain
        lines if it is no terminal: of a step that takes longer than `FIRST_SECONDS`, then every `LINE_SECONDS`,
        whether the step advances or not. False shows nothing. To an open `EventLog` steps write when they begin, every
        `EVENT_SECONDS` and when they end, unless it is False.
    detail : bool
        Show the details that steps report about themselves.
    """

    FIRST_SECONDS = 2.0
    LINE_SECONDS = 10.0
    EVENT_SECONDS = 5.0

    def __init__(self, show: bool | None = None, *, detail: bool = False) -> None:
        self.detail = detail
        self.log = None if show is False else current_log()
        shell = None if show is False or self.log else notebook_shell()
        terminal = sys.stderr.isatty()
        self.cell = CellOutput.of(shell) if shell else None
        self.bars = terminal and show is not False
        self.lines = not terminal and show is True

    def say(self, message: str) -> None:
        """Write one line, unless nothing is to be shown."""
        if self.log:
            self.log.event("note", message=message)
        elif self.cell:
            self.cell.say(message)
        elif self.bars or self.lines:
            print(message, file=sys.stderr, flush=True)

    def say_all(self, messages: Iterable[str]) -> None:
        """Write each message on a line."""
        for message in messages:
            self.say(message)

    def event(self, name: str, /, **fields: Any) -> None:
        """Write an event for programs, which people are told in other words."""
        if self.log:
            self.log.event(name, **fields)

    @contextmanager
    def step(
        self, name: str, total: int | None = None, unit: str = "items", detail: Callable[[], str] | None = None
    ) -> Iterator[Advance]:
        """Show a step of ``total`` items; the block calls the `Advance` that it gets as items are finished.

        Without ``total`` the length of the step is not known: its name is shown, and what is counted, if anything is.
        """
        detail = detail if self.detail else None
        if total == 0:
            yield uncounted
        elif self.log:
            with self._events(StepCount(name, total, unit)) as advance:
                yield advance
        elif self.cell:
            with self.cell.step(StepCount(name, total, unit, detail), total) as advance:
                yield advance
        elif self.bars:
            with self._bar(name, total, unit, detail) as advance:
                yield advance
        elif self.lines:
            with self._plain(StepCount(name, total, unit, detail)) as advance:
                yield advance
        else:
            yield uncounted

    @contextmanager
    def _bar(self, name: str, total: int | None, unit: str, detail: Callable[[], str] | None) -> Iterator[Advance]:
        from rich import progress as rich
        from rich.console import Console

        known = (rich.MofNCompleteColumn(), rich.TextColumn("{task.fields[rate]}"), rich.TimeRemainingColumn())
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            *((rich.TimeElapsedColumn(),) if total is None else known),
            rich.TextColumn("{task.fields[detail]}"),
        )
        # The command line escapes control characters of others; those of the bar are its own.
        console = Console(file=getattr(sys.stderr, "terminal", sys.stderr))
        with rich.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(name, total=total, rate="", detail="")

            def advance(count: int = 1) -> None:
                rate = bar.tasks[0].speed
                text = detail() if detail else ""
                bar.update(task, advance=count, rate=speed(rate, unit) if rate else "", detail=text)

            yield advance

    @contextmanager
    def _plain(self, count: StepCount) -> Iterator[Advance]:
        def write() -> None:
            print(count.now(), file=sys.stderr, flush=True)

        with repeated(write, self.FIRST_SECONDS, self.LINE_SECONDS):
            yield count.add

    @contextmanager
    def _events(self, count: StepCount) -> Iterator[Advance]:
        self.event("step_started", **count.numbers())
        with repeated(lambda: self.event("step_progress", **count.numbers()), self.EVENT_SECONDS, self.EVENT_SECONDS):
            yield count.add
        self.event("step_finished", **count.numbers())


@contextmanager
def repeated(report: Callable[[], None], first: float, every: float) -> Iterator[None]:
    """Call ``report`` after ``first`` seconds of the block, and then every so many.

    In a thread, as what is silent longest does not advance: the first fit, an engine that is looked for.
    """
    ended = threading.Event()

    def run() -> None:
        wait = first
        while not ended.wait(wait):
            wait = every
            report()

    thread = threading.Thread(target=run, name="embedpipe-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
