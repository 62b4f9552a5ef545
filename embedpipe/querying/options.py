"""Options of `embedpipe.search` and of the command line's ``search``."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options of a search: number of neighbours, the rows to search in, and the layer.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    k: int = field(default=10, metadata={"help": "Number of neighbours per query."})
    where: str | None = field(
        default=None,
        metadata={
            "help": "Search in the rows that pass a condition of SQL, such as \"split = 'train' AND width > 500\"."
        },
    )
    exact: bool = field(default=False, metadata={"help": "Compare with every row, also where the store has an index."})
    layer: str | None = field(
        default=None,
        metadata={"help": "The layer to compare by, where the store has several; a+b joins two end to end."},
    )

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise UsageError(f"{option('k')} must be an integer >= 1, got {self.k!r}")
