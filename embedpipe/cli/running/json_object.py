"""The JSON object that every verb prints with ``--json``: how the run ended, and its result."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from embedpipe._utils.messages.json_values import without_nan
from embedpipe._utils.version import __version__
from embedpipe.errors import ExitCode


class JsonObject:
    """Collects the result of one run of a verb.

    Parameters
    ----------
    command : str
        Name of the verb.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._started = datetime.now(UTC)
        self._values: dict[str, Any] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        """Add keys of the result."""
        self._values.update(values)

    def print(self, code: int, error: BaseException | None = None, message: str | None = None) -> None:
        """Print the object on standard output, with an exit code and the error that ended the run."""
        versions = {"embedpipe": __version__, "python": platform.python_version()}
        if "version" in self._values:
            versions["store"] = self._values["version"]
        failure = None
        if error is not None:
            words = message or str(error) or ExitCode(code).status
            failure = {"type": type(error).__name__, "message": words, "exit_code": int(code)}
        header = {
            "command": self._command,
            "status": ExitCode(code).status,
            "exit_code": int(code),
            "started": self._started.isoformat(timespec="milliseconds"),
            "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "versions": versions,
            "error": failure,
        }
        values = header | {key: value for key, value in self._values.items() if key not in header}
        print(json.dumps(without_nan(values), indent=2, default=str))


_current: ContextVar[JsonObject | None] = ContextVar("embedpipe_json_object", default=None)


@contextlib.contextmanager
def json_object(command: str) -> Iterator[JsonObject]:
    """Collect what the block gives to `json_value`; what it prints goes to standard error."""
    collected = JsonObject(command)
    token = _current.set(collected)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield collected
    finally:
        _current.reset(token)


def json_value(values: Mapping[str, Any]) -> None:
    """Add keys to the JSON object of the verb that runs."""
    collected = _current.get()
    if collected is None:
        raise RuntimeError("json_value needs a verb that runs with --json")
    collected.add(values)
