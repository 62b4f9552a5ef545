"""How a head is fitted: the options that the command line and `embedpipe.fit` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from embedpipe.errors import UsageError, nearest

Task = Literal["classification", "regression"]


@dataclass(frozen=True, slots=True)
class FitOptions:
    """What to learn from, and how to measure it.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    label: str = field(default="label", metadata={"help": "The store's column to learn."})
    column: str | None = field(default=None, metadata={"help": "Which embedding, where there are several."})
    task: Task | None = field(
        default=None,
        metadata={"help": "classification or regression; where not given, numbers with fractions are regression."},
    )
    folds: int = field(
        default=5,
        metadata={"help": "Folds of the cross-validation, where the store has no splits; 0 fits without measuring."},
    )
    remove_components: int = field(
        default=0,
        metadata={
            "help": "Subtract the projection on the first N singular vectors of the training rows before the head: "
            "1 for sif pooling."
        },
    )

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in get_args(Task):
            raise UsageError(
                f"task={self.task!r} is not one of {', '.join(get_args(Task))}{nearest(self.task, get_args(Task))}"
            )
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"folds={self.folds} must be at least 2, or 0 to fit without measuring")
        if self.remove_components < 0:
            raise UsageError(f"remove_components={self.remove_components} is negative: 0 removes none, 1 is usual")
