"""How to search: the options that the command line and `embedpipe.search` share."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How many neighbours, and by which vectors.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    k: int = field(default=10, metadata={"help": "How many neighbours of each query."})
    layer: str | None = field(
        default=None,
        metadata={"help": "The layer to compare by, where the store has several; a+b joins two end to end."},
    )

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise UsageError(f"k={self.k!r} must be a whole number of at least 1")
