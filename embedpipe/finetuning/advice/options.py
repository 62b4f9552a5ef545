"""Options of `embedpipe.advise`."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.options import parse_time


@dataclass(frozen=True, kw_only=True)
class AdviseOptions:
    """Requirements on fine-tuning, and the effort of the pilot.

    Raises
    ------
    UsageError
        If a value is out of range, or ``min_gain`` and ``point_worth`` are both given.
    """

    min_gain: float = field(
        default=0.01, metadata={"help": "Smallest gain of accuracy that is worth it, as a fraction: 0.01 is one point."}
    )
    shift_margin: float = field(
        default=0.01, metadata={"help": "Accepted fall of accuracy on corrupted images, as a fraction."}
    )
    time_budget: str | None = field(
        default=None,
        metadata={"help": "Such as 30min: train networks in this time until the forecast decides; needs a folder."},
    )
    point_worth: str | None = field(
        default=None,
        metadata={
            "help": "Time that a point of accuracy is worth, such as 30min: recommend what gains more than it costs, "
            "instead of asking for a minimum gain."
        },
    )
    seeds: int = field(default=3, metadata={"help": "Most draws of labels that are trained at once."})

    def __post_init__(self) -> None:
        for name in ("min_gain", "shift_margin"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"{option(name)} must be in [0, 1), got {getattr(self, name)}: 0.01 is one percentage point"
                )
        if self.seeds < 2:
            raise UsageError(
                f"{option('seeds')} must be >= 2, got {self.seeds}: one seed does not show how much seeds differ"
            )
        _ = self.budget_seconds, self.point_seconds
        if self.point_worth is not None and self.min_gain != type(self).min_gain:
            raise UsageError(
                f"{option('point_worth')} asks for the gain that pays for its time, in place of {option('min_gain')}, "
                f"got {option('point_worth', self.point_worth)} and {option('min_gain', self.min_gain)}: leave one out"
            )

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds; None without one."""
        return None if self.time_budget is None else parse_time("time_budget", self.time_budget)

    @property
    def point_seconds(self) -> float | None:
        """The seconds that a point of accuracy is worth; None if that is not given."""
        return None if self.point_worth is None else parse_time("point_worth", self.point_worth)
