"""Options of `embedpipe.reduce` and of the command line's ``reduce``."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class ReduceOptions:
    """What is reduced, how far, and how the loss is measured.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    dimensions: int = field(default=128, metadata={"help": "Number of values of the new vectors."})
    whiten: bool = field(
        default=False, metadata={"help": "Scale each value to variance 1, so that all directions count alike."}
    )
    layer: str | None = field(default=None, metadata={"help": "The layer to reduce, where the network gave several."})
    label: str = field(default="label", metadata={"help": "Column of labels to compare heads on, if the store has it."})
    sample: int = field(
        default=1000, metadata={"help": "Number of rows on which neighbours and heads are compared; 0: none."}
    )

    def __post_init__(self) -> None:
        for name, least in (("dimensions", 1), ("sample", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{option(name)} must be >= {least}, got {getattr(self, name)}")
