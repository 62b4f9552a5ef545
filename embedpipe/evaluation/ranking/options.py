"""Options of `embedpipe.rank`."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.heads.options import FitOptions, Task

#: Smallest number of rows of a class that is compared: two for each fold of the cross-validation.
MIN_ROWS = 10


@dataclass(frozen=True, slots=True)
class RankOptions:
    """Size and task of the sample on which backbones are compared.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    sample: int = field(
        default=500, metadata={"help": "Number of labelled items to compare on, a stratified sample of all."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the sample and of the folds."})
    random: bool = field(
        default=False,
        metadata={"help": "Also rank the first backbone with random weights, as a baseline of pretraining."},
    )
    task: Task | None = field(
        default=None,
        metadata={"help": "classification or regression; by default regression for numbers with fractions."},
    )

    def __post_init__(self) -> None:
        FitOptions(task=self.task)  # raises UsageError for an unknown task
        if self.sample < 2 * MIN_ROWS:
            raise UsageError(f"{option('sample')} must be >= {2 * MIN_ROWS}, got {self.sample}")
