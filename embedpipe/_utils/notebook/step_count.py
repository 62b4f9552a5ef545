"""How far a step has come, in words: what is done, the rate, and the time that is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any


class StepCount:
    """Counts the items of a step that are done.

    Parameters
    ----------
    name : str
    total : int, optional
        Number of items; None if the length of the step is not known.
    unit : str
        What is counted, in the plural.
    detail : callable, optional
        Returns what the step says about itself, when it advances.
    """

    def __init__(self, name: str, total: int | None, unit: str, detail: Callable[[], str] | None = None) -> None:
        self.done = 0
        self._name, self._total, self._unit, self._detail = name, total, unit, detail
        self._start = time.monotonic()
        self._text = ""

    def add(self, count: int = 1) -> None:
        """Note that more items are done."""
        self.done += count
        self._text = f"; {self._detail()}" if self._detail else ""

    def now(self) -> str:
        """Return what is done and when the rest will be; of a step of unknown length what has gone on so far."""
        seconds = time.monotonic() - self._start
        if not self.done:
            return f"{self._counted()}, {duration(seconds)} so far"
        rate = self.done / max(seconds, 1e-9)
        left = "" if self._total is None else f", {duration((self._total - self.done) / rate)} left"
        return f"{self._counted()}, {speed(rate, self._unit)}{left}{self._text}"

    def numbers(self) -> dict[str, Any]:
        """Return the same for programs: ``done``, ``total``, ``unit``, ``seconds``, and ``seconds_left`` if known."""
        seconds = time.monotonic() - self._start
        left = (self._total - self.done) * seconds / self.done if self.done and self._total is not None else None
        return {
            "step": self._name,
            "done": self.done,
            "total": self._total,
            "unit": self._unit,
            "seconds": round(seconds, 3),
            "seconds_left": None if left is None else round(left, 3),
        }

    def ended(self) -> str:
        """Return what was done in how long."""
        return f"{self._counted()} in {duration(time.monotonic() - self._start)}"

    def _counted(self) -> str:
        if self._total is None:
            return f"{self._name}: {self.done:,} {self._unit}" if self.done else self._name
        unit = re.sub(r"(?<=ch)es$|s$", "", self._unit) if self._total == 1 else self._unit
        return f"{self._name}: {self.done:,} of {self._total:,} {unit}"


def speed(rate: float, unit: str) -> str:
    """Return ``12.5 items/s``, or ``5.0 s each`` for slower ones."""
    return f"{rate:,.1f} {unit}/s" if rate >= 1 else f"{duration(1 / rate)} each"


def duration(seconds: float) -> str:
    """Return ``3.2 s``, ``45 s``, ``2 min 05 s``, ``1 h 03 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"
