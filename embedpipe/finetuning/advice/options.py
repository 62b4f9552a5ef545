"""Options of `embedpipe.advise`."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.options import BenchmarkOptions


@dataclass(frozen=True, kw_only=True)
class AdviseOptions:
    """What is asked of fine-tuning, and what may be spent on finding out.

    Raises
    ------
    UsageError
        If a value is not one that there is.
    """

    min_gain: float = field(
        default=0.01, metadata={"help": "The gain of accuracy that is asked for, as a share: 0.01 is a point."}
    )
    shift_margin: float = field(
        default=0.01, metadata={"help": "The fall of accuracy on corrupted images that is borne, as a share."}
    )
    time_budget: str | None = field(
        default=None, metadata={"help": "Such as 30min: pays for a pilot, as large as fits into it."}
    )
    seeds: int = field(default=3, metadata={"help": "Draws of rows of the pilot, for each of its sizes."})

    def __post_init__(self) -> None:
        for name in ("min_gain", "shift_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"{name}={getattr(self, name)} is no share of the rows, 0 or more and below 1: 0.01 is a point"
                )
        if self.seeds < 2:
            raise UsageError(f"seeds={self.seeds} is too few: 2 at least, as one says nothing of how much seeds differ")
        _ = self.seconds_allowed

    @property
    def seconds_allowed(self) -> float | None:
        """The time budget in seconds; None where there is none."""
        return BenchmarkOptions(time_budget=self.time_budget).seconds_allowed
