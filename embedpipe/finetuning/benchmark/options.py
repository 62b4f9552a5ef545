"""Options of `embedpipe.benchmark`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from embedpipe.errors import UsageError

#: Seconds of the units that a time budget may be given in.
UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is trained, how often, and what it is measured on.

    Raises
    ------
    UsageError
        If a value is not one that there is.
    """

    label_counts: tuple[int, ...] = field(
        default=(), metadata={"help": "Numbers of labels to learn from; by default about four, the largest being all."}
    )
    seeds: int = field(default=5, metadata={"help": "Draws of labels at each budget, counted up from --seed."})
    corruptions: tuple[str, ...] = field(
        default=(),
        metadata={"help": "What is done to the test images to shift them: by default eleven kinds, or none."},
    )
    severities: tuple[int, ...] = field(
        default=(1, 3, 5), metadata={"help": "How strongly images are corrupted, 1 (slightly) to 5 (heavily)."}
    )
    time_budget: str | None = field(
        default=None, metadata={"help": "10min, 2h: leave out the largest sizes, so that the rest fits."}
    )

    def __post_init__(self) -> None:
        for name in ("label_counts", "severities"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        given = (self.corruptions,) if isinstance(self.corruptions, str) else self.corruptions
        object.__setattr__(self, "corruptions", tuple(dict.fromkeys(given)))
        if self.label_counts and self.label_counts[0] < 1:
            raise UsageError(f"label_counts={list(self.label_counts)} are numbers of labels: give 1 and more")
        if not self.severities or self.severities[0] < 1 or self.severities[-1] > 5:
            raise UsageError(f"severities={list(self.severities)} are not from 1 to 5, one at least")
        if self.seeds < 1:
            raise UsageError(f"seeds={self.seeds} is too small: 1 at least, and 5 for intervals that say something")
        _ = self.seconds_allowed

    @property
    def seconds_allowed(self) -> float | None:
        """The time budget in seconds; None where there is none."""
        if self.time_budget is None:
            return None
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h)\s*", str(self.time_budget))
        if found is None or not float(found[1]):
            raise UsageError(f"time_budget={self.time_budget!r} is no time: write 90s, 10min or 2h")
        return float(found[1]) * UNITS[found[2]]


def _numbers(name: str, given: Any) -> tuple[int, ...]:
    """Return numbers going up, each once; a command line gives them as text."""
    values = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    try:
        return tuple(sorted({int(str(value)) for value in values}))
    except ValueError as error:
        raise UsageError(f"{name}={given!r} are not whole numbers") from error
