"""Options of `embedpipe.clusters`."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedpipe._utils.option_names import option
from embedpipe._utils.options import split_names
from embedpipe.errors import UsageError

#: Each row is a cluster long before it.
HIGHEST_RESOLUTION = 1e6


@dataclass(frozen=True, kw_only=True)
class ClustersOptions:
    """How rows are grouped, and by what groups are described.

    Raises
    ------
    UsageError
        If a value is out of range.
    """

    layer: str | None = field(
        default=None, metadata={"help": "The layer whose vectors are compared, where the store has several."}
    )
    resolution: float = field(default=1.0, metadata={"help": "Larger values give more clusters, smaller ones fewer."})
    words: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Words to describe photos by, where the backbone embeds texts: red,striped,shoe."},
    )
    label: str = field(default="label", metadata={"help": "The column of labels with which clusters are compared."})
    seed: int = field(default=0, metadata={"help": "Seed of everything that is drawn."})

    def __post_init__(self) -> None:
        if not 0 < self.resolution <= HIGHEST_RESOLUTION:
            raise UsageError(
                f"{option('resolution')} must be > 0 and at most {HIGHEST_RESOLUTION:g}, got {self.resolution:g}"
            )
        object.__setattr__(self, "words", split_names("words", self.words))
