"""Options for who is trained on and who is not."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe.neighbours.near import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How rows get their split, where the store has no ``split`` column."""

    group: str | None = field(
        default=None, metadata={"help": "A column: rows with the same value stay on one side, as of one patient."}
    )
    near_duplicates: NearDuplicates = field(
        default=NEAR_DUPLICATE_COSINE,
        metadata={"help": "Centred cosine from which rows are near-duplicates and stay on one side, or off."},
    )
    splits: str | None = field(
        default=None,
        metadata={"help": "A .parquet file of splits, as `evaluate` writes it: its first division is used."},
    )

    def __post_init__(self) -> None:
        check_near_duplicates(self.near_duplicates)
