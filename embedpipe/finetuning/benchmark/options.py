"""Options of `embedpipe.benchmark`, and time budgets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

#: Seconds of each unit of a time budget.
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Label counts, seeds and corruptions of a benchmark.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    label_counts: tuple[int, ...] = field(
        default=(),
        metadata={"help": "Numbers of labels to learn from, as 100,400; by default about four, up to all labels."},
    )
    seeds: int = field(default=5, metadata={"help": "Draws of labels at each label count, counted up from the seed."})
    corruptions: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Corruptions of the test images, such as fog; by default eleven kinds. none for no corruption."
        },
    )
    severities: tuple[int, ...] = field(
        default=(1, 3, 5), metadata={"help": "Severities of the corruptions, from 1 (slight) to 5 (heavy)."}
    )
    time_budget: str | None = field(
        default=None, metadata={"help": "Such as 10min or 2h: drop the largest label counts until the rest fits."}
    )

    def __post_init__(self) -> None:
        for name in ("label_counts", "severities"):
            object.__setattr__(self, name, _sorted_ints(name, getattr(self, name)))
        object.__setattr__(self, "corruptions", tuple(dict.fromkeys(_parts(self.corruptions))))
        if self.label_counts and self.label_counts[0] < 1:
            raise UsageError(f"{option('label_counts')} must be >= 1, got {list(self.label_counts)}")
        if not self.severities or self.severities[0] < 1 or self.severities[-1] > 5:
            raise UsageError(f"{option('severities')} must be at least one of 1 to 5, got {list(self.severities)}")
        if self.seeds < 1:
            raise UsageError(f"{option('seeds')} must be >= 1, got {self.seeds}: 5 give useful intervals")
        _ = self.budget_seconds

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds; None without one."""
        return None if self.time_budget is None else parse_time("time_budget", self.time_budget)


def parse_time(name: str, text: str) -> float:
    """Return the seconds of an option such as ``90s``, ``10min`` or ``2h``. Raises UsageError for other texts."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)\s*", str(text))
    if match is None or not float(match[1]):
        raise UsageError(f"{option(name)} must be a time such as 90s, 10min or 2h, got {text!r}")
    return float(match[1]) * UNITS[match[2]]


def _parts(given: Any) -> list[Any]:
    """Return the values of a sequence or of one value; those of a text are separated by commas, as in ``100,400``."""
    values = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    return [part for value in values for part in (value.split(",") if isinstance(value, str) else [value])]


def _sorted_ints(name: str, given: Any) -> tuple[int, ...]:
    """Return unique integers in ascending order; the command line gives them as text."""
    try:
        return tuple(sorted({int(str(value)) for value in _parts(given)}))
    except ValueError as error:
        raise UsageError(f"{option(name)} must be integers, got {given!r}") from error
