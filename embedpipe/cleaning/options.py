"""Options of `embedpipe.clean`, `embedpipe.shift` and `embedpipe.next`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe._utils.options import split_names
from embedpipe.errors import UsageError
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Which column of labels and which vectors are read, and how what is random is drawn."""

    label: str = field(default="label", metadata={"help": "The column of labels."})
    layer: str | None = field(default=None, metadata={"help": "The layer that is read, where the store has several."})
    seed: int = field(default=0, metadata={"help": "Seed of everything that is drawn, such as folds."})


@dataclass(frozen=True, kw_only=True)
class CleanOptions(RowOptions):
    """What counts as a finding.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    group: str | None = field(
        default=None,
        metadata={"help": "Column of values, such as patients, that one fold predicts together."},
    )
    near_duplicates: float = field(
        default=NEAR_DUPLICATE_COSINE,
        metadata={"help": "Centred cosine from which rows without perceptual hashes are near-duplicates."},
    )
    outlier_z: float = field(
        default=5.0,
        metadata={"help": "Robust standard deviations from which the distance to the neighbours makes an outlier."},
    )
    neighbours: int = field(default=20, metadata={"help": "Neighbours of each row in the graph."})

    def __post_init__(self) -> None:
        if not 0 < self.near_duplicates <= 1:
            raise UsageError(f"{option('near_duplicates')} must be a cosine in (0, 1], got {self.near_duplicates}")
        if not 0 < self.outlier_z < math.inf:
            raise UsageError(f"{option('outlier_z')} must be > 0 and finite, got {self.outlier_z}")
        if self.neighbours < 2:
            raise UsageError(f"{option('neighbours')} must be >= 2, got {self.neighbours}")


@dataclass(frozen=True, kw_only=True)
class ShiftOptions(RowOptions):
    """What is compared, and when it counts as a shift.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    splits: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Two splits of the store to compare (default: train,test); beside another store, one: the old rows."
        },
    )
    alpha: float = field(default=0.05, metadata={"help": "p-value from which rows count as shifted."})
    permutations: int = field(default=500, metadata={"help": "Random relabellings of the test."})

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise UsageError(f"{option('alpha')} must be in (0, 1), got {self.alpha}")
        object.__setattr__(self, "splits", split_names("splits", self.splits))
        if self.permutations < 1 / self.alpha:
            raise UsageError(
                f"{option('permutations')} must be >= {1 / self.alpha:g} for {option('alpha', self.alpha)}, got "
                f"{self.permutations}"
            )


@dataclass(frozen=True, kw_only=True)
class NextOptions(RowOptions):
    """How many items are chosen, and by what.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    count: int = field(default=100, metadata={"help": "Items to choose."})
    skip_simulation: bool = field(
        default=False, metadata={"help": "Do not compare with random choices on the labelled rows."}
    )

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"{option('count')} must be >= 1, got {self.count}")
