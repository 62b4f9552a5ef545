"""Options of searches, and of the index that makes them fast."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.machine.memory import parse_size
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE


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
    distinct: bool = field(
        default=False,
        metadata={
            "help": "Show near-identical answers once, with the number of the others: a cosine, from the mean of "
            f"the store, of at least {NEAR_DUPLICATE_COSINE}."
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


#: The largest recall that `neighbours.tuning` can choose cells for: none of its 10,000 queries misses a row then.
MOST_RECALL = 0.9995


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """Options of a saved index: the recall that it promises, and its size.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    recall: float = field(
        default=0.95,
        metadata={"help": "Share of the 10 nearest rows to find, with 95 % confidence: above 0, at most 0.9995."},
    )
    memory: str | None = field(
        default=None,
        metadata={"help": "Largest size of the index, such as 500MB; values have 6 or 4 bits where 8 need more."},
    )

    def __post_init__(self) -> None:
        is_number = isinstance(self.recall, int | float) and not isinstance(self.recall, bool)
        if not is_number or not 0 < self.recall <= MOST_RECALL:
            raise UsageError(
                f"{option('recall')} must be above 0 and at most {MOST_RECALL}, the most that 10,000 queries can show, "
                f"got {self.recall!r}: to find all, search with {option('exact', True)}"
            )
        _ = self.memory_bytes

    @property
    def memory_bytes(self) -> int | None:
        """The largest size in bytes. Raises UsageError if ``memory`` is no size."""
        return parse_size("memory", self.memory)
