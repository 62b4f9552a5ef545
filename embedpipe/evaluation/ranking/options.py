"""How source models are ranked: the options that the command line and `embedpipe.rank` share."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe.errors import UsageError
from embedpipe.heads.options import FitOptions, Task

#: Rows that a class needs to take part: two for each fold of the cross-validation.
FEWEST = 10


@dataclass(frozen=True, slots=True)
class RankOptions:
    """On how much data to compare backbones.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    sample: int = field(
        default=500, metadata={"help": "How many labelled items to compare on, with the shares of the classes kept."}
    )
    seed: int = field(default=0, metadata={"help": "Another number draws another sample, and other folds."})
    random: bool = field(
        default=False,
        metadata={"help": "Rank the first backbone with random weights, too: what pretraining is worth."},
    )
    task: Task | None = field(
        default=None,
        metadata={"help": "classification or regression; where not given, numbers with fractions are regression."},
    )

    def __post_init__(self) -> None:
        FitOptions(task=self.task)  # refuses what is no task
        if self.sample < 2 * FEWEST:
            raise UsageError(f"sample={self.sample} is too few to compare on: at least {2 * FEWEST}")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed} must be a whole number of at least 0")
