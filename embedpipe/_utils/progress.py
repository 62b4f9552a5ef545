"""Progress of long steps: a bar on a terminal or in a notebook, otherwise a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from embedpipe._utils.notebook.progress_bar import CellOutput, notebook_shell


class Advance(Protocol):
    """Called with the number of items that were finished since the last call."""

    def __call__(self, count: int = 1) -> None:
        """Advance by ``count`` items."""


class Progress:
    """Shows named steps on standard error, or below the cell of a notebook.

    Parameters
    ----------
    show : bool, optional
        None shows a bar in a notebook or if standard error is a terminal, and nothing otherwise. True shows plain
        lines, at most one every `LINE_SECONDS`, if it is no terminal. False shows nothing.
    detail : bool
        Show the details that steps report about themselves.
    """

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
        self, name: str, total: int, unit: str = "items", detail: Callable[[], str] | None = None
    ) -> Iterator[Advance]:
        """Show a step of ``total`` items; the block calls the `Advance` that it gets as items are finished."""
        detail = detail if self.detail else None
        if self.cell:
            with self.cell.step(name, total, unit, detail) as advance:
                yield advance
        elif self.bars:
            with self._bar(name, total, unit, detail) as advance:
                yield advance
        elif self.lines:
            with self._plain(name, total, unit, detail) as advance:
                yield advance
        else:
            yield lambda count=1: None

    @contextmanager
    def _bar(self, name: str, total: int, unit: str, detail: Callable[[], str] | None) -> Iterator[Advance]:
        from rich import progress as rich
        from rich.console import Console

        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn("{task.fields[rate]}"),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[detail]}"),
        )
        # The command line escapes control characters of others; those of the bar are its own.
        console = Console(file=getattr(sys.stderr, "terminal", sys.stderr))
        with rich.Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(name, total=total, rate="", detail="")

            def advance(count: int = 1) -> None:
                speed = bar.tasks[0].speed
                text = detail() if detail else ""
                bar.update(task, advance=count, rate=f"{speed:,.1f} {unit}/s" if speed else "", detail=text)

            yield advance

    @contextmanager
    def _plain(self, name: str, total: int, unit: str, detail: Callable[[], str] | None) -> Iterator[Advance]:
        start = last = time.monotonic()
        done = 0

        def advance(count: int = 1) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= self.LINE_SECONDS:
                last = now
                rate = done / (now - start)
                left = (total - done) / rate if rate else 0.0
                text = f"; {detail()}" if detail else ""
                print(
                    f"{name}: {done:,} of {total:,}, {rate:,.1f} {unit}/s, {left:,.0f} s left{text}",
                    file=sys.stderr,
                    flush=True,
                )

        yield advance
