"""Progress of long steps: a bar on a terminal or in a notebook, else a line after two seconds and then every ten."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

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
        whether the step advances or not. False shows nothing.
    detail : bool
        Show the details that steps report about themselves.
    """

    FIRST_SECONDS = 2.0
    LINE_SECONDS = 10.0

    def __init__(self, show: bool | None = None, *, detail: bool = False) -> None:
        self.detail = detail
        shell = None if show is False else notebook_shell()
        terminal = sys.stderr.isatty()
        self.cell = CellOutput.of(shell) if shell else None
        self.bars = terminal and show is not False
        self.lines = not terminal and show is True

    def say(self, message: str) -> None:
        """Write one line, unless nothing is to be shown."""
        if self.cell:
            self.cell.say(message)
        elif self.bars or self.lines:
            print(message, file=sys.stderr, flush=True)

    def say_all(self, messages: Iterable[str]) -> None:
        """Write each message on a line."""
        for message in messages:
            self.say(message)

    @contextmanager
    def step(
        self, name: str, total: int | None = None, unit: str = "items", detail: Callable[[], str] | None = None
    ) -> Iterator[Advance]:
        """Show a step of ``total`` items; the block calls the `Advance` that it gets as items are finished.

        Without ``total`` the length of the step is not known: its name is shown, and what is counted, if anything is.
        """
        detail = detail if self.detail else None
        if self.cell:
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
        ended = threading.Event()

        def write() -> None:
            wait = self.FIRST_SECONDS
            while not ended.wait(wait):
                wait = self.LINE_SECONDS
                print(count.now(), file=sys.stderr, flush=True)

        # A thread, as what is silent longest does not advance: the first fit, an engine that is looked for.
        writer = threading.Thread(target=write, name="embedpipe-progress", daemon=True)
        writer.start()
        try:
            yield count.add
        finally:
            ended.set()
            writer.join()
