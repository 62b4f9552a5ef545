"""Progress in a notebook: one output per cell that changes in place."""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from typing import Any

from embedpipe._utils.notebook.step_count import StepCount

#: Messages that stay above the bar; older ones go.
MAX_MESSAGES = 8


def notebook_shell() -> Any:
    """Return the shell of IPython if a notebook shows its outputs, else None. IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None  # a terminal has no kernel


class CellOutput:
    """The output below one cell: messages, and under them the step that runs or ran last.

    All verbs of a cell share it, so that a loop of a hundred fits leaves one line. It needs no widgets: the front end
    is sent a new content for the same output, which is also what it saves.
    """

    #: Seconds between two changes of the bar.
    INTERVAL = 0.25

    _of_cell: tuple[int, CellOutput] | None = None

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._status = self._bar = ""
        self._handle: Any = None
        with warnings.catch_warnings(), suppress(ImportError):
            # Libraries that download show bars of tqdm, which asks for widgets when it is imported in a notebook.
            warnings.filterwarnings("ignore", "IProgress not found")
            importlib.import_module("tqdm.auto")

    @classmethod
    def of(cls, shell: Any) -> CellOutput:
        """Return the output of the cell that the shell runs."""
        if cls._of_cell is None or cls._of_cell[0] != shell.execution_count:
            cls._of_cell = shell.execution_count, cls()
        return cls._of_cell[1]

    def say(self, message: str) -> None:
        """Show a message above the bar; one that is shown already is not repeated."""
        if message not in self._messages:
            self._messages = [*self._messages, message][-MAX_MESSAGES:]
            self._show()

    @contextmanager
    def step(self, count: StepCount, total: int | None) -> Iterator[Callable[..., None]]:
        """Show a bar with rate and time left, and when the block ends one line instead; see `Progress.step`.

        Of a step of unknown length no line stays.
        """
        last = time.monotonic()
        before = self._status

        def advance(items: int = 1) -> None:
            nonlocal last
            count.add(items)
            now = time.monotonic()
            if now - last >= self.INTERVAL:
                last = now
                draw()

        def draw() -> None:
            self._status = count.now()
            far = "" if total is None else f'value="{count.done}" max="{max(total, 1)}" '
            self._bar = f'<progress {far}style="width:16em"></progress> '
            self._show()

        draw()
        try:
            yield advance
        finally:
            self._status = before if total is None else count.ended()
            self._bar = ""
            self._show()

    def _show(self) -> None:
        from IPython.display import display

        lines = [*self._messages, *([self._status] if self._status else [])]
        status = f"<div>{self._bar}{escape(self._status)}</div>" if self._status else ""
        html = "".join(f"<div>{escape(message)}</div>" for message in self._messages) + status
        bundle = {"text/plain": "\n".join(lines), "text/html": html}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)
