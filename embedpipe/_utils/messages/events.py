"""The log for programs: one JSON object a line for each event, in the place of what people read on standard error.

While a log is open, `Progress` and the command line write to it; `docs/reference/log.md` lists them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from embedpipe._utils.messages.json_values import without_nan

_current: EventLog | None = None


class EventLog:
    """Writes events as lines of JSON, from any thread.

    Parameters
    ----------
    stream : text stream
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def event(self, name: str, /, **fields: Any) -> None:
        """Write one line: ``time`` in UTC, ``event``, and the fields."""
        values = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": name, **fields}
        line = json.dumps(without_nan(values), default=str)
        with self._lock:
            self._stream.write(f"{line}\n")
            self._stream.flush()


def current_log() -> EventLog | None:
    """Return the log that is open; None where people read standard error."""
    return _current


@contextmanager
def event_log(stream: TextIO) -> Iterator[EventLog]:
    """Open a log for the block."""
    global _current
    before, _current = _current, EventLog(stream)
    try:
        yield _current
    finally:
        _current = before


def log_event(name: str, /, **fields: Any) -> bool:
    """Write an event if a log is open. Return whether one is."""
    if _current is not None:
        _current.event(name, **fields)
    return _current is not None
