"""``--log json``: standard error holds one JSON object a line, for whoever watches, and nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from embedpipe._utils.messages.events import event_log, log_event
from embedpipe._utils.version import __version__
from embedpipe.errors import ExitCode

#: What the messages of verbs begin with, which an event needs not.
PREFIX = "embedpipe: "


class EventStream(io.TextIOBase):
    """Standard error while a log is open: each line that anything prints there becomes an event ``message``."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._line = ""

    def write(self, text: str) -> int:
        """Keep text until its line ends."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._message(line)
        return len(text)

    def end(self) -> None:
        """Write what has no line end yet."""
        self._message(self._line)
        self._line = ""

    def fileno(self) -> int:
        """Return the descriptor below, by which programs notice that nobody reads."""
        return int(self._stream.fileno())

    def _message(self, line: str) -> None:
        text = line.rstrip().rpartition("\r")[2]  # of the progress bar of a library, its last state
        if text:
            log_event("message", message=text.removeprefix(PREFIX))


@contextmanager
def event_lines(command: str) -> Iterator[None]:
    """Write the events of a verb on standard error: its start, what the block says, and an error that nobody foresaw.

    Such an error becomes an event with its traceback, and exit code 1.
    """
    stream = sys.stderr
    lines = EventStream(stream)
    show = warnings.showwarning
    with event_log(stream) as log, contextlib.redirect_stderr(lines):
        warnings.showwarning = lambda message, *_: log.event("warning", message=str(message))
        log.event("start", command=command, embedpipe=__version__, pid=os.getpid())
        start = time.perf_counter()
        code: int = ExitCode.FAILED
        try:
            yield
        except typer.Exit as ended:
            code = ended.exit_code
            raise
        except BrokenPipeError:
            raise
        except Exception as error:
            log_error(error, code, "".join(traceback.format_exception(error)))
            raise typer.Exit(code) from error
        finally:
            warnings.showwarning = show
            lines.end()
            seconds = round(time.perf_counter() - start, 3)
            log.event("end", command=command, status=ExitCode(code).status, exit_code=int(code), seconds=seconds)


def log_error(error: BaseException, code: int, trace: str | None = None, message: str | None = None) -> bool:
    """Write the error that ended a verb, if a log is open. Return whether one is."""
    words = message or str(error) or ExitCode(code).status
    return log_event("error", type=type(error).__name__, message=words, exit_code=int(code), traceback=trace)


def asks_for_events(arguments: Sequence[str]) -> bool:
    """Return whether ``--log json`` is among arguments that could not be parsed."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(name == "--log=json" or (name, value) == ("--log", "json") for name, value in pairs)
