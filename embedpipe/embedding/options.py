"""How an embedding run goes: the options that the command line and `embedpipe.embed` share."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.errors import UsageError

EngineChoice = Literal["auto", "torch"]


class Shard(NamedTuple):
    """Items whose id falls to one of ``total`` processes, ``number`` of them, counted from 1.

    It goes by the id alone, so processes agree on it however the source and the store change meanwhile.
    """

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Read ``2/4``; None is all there is. Raises UsageError for anything else."""
        if text is None:
            return cls()
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"shard={text!r} is no share: give I/N, such as 1/4 to 4/4 for four processes")
        return cls(int(found[1]), int(found[2]))

    def marks(self, ids: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
        """Mark the ids that are of this shard."""
        mine = (zlib.crc32(id.encode()) % self.total == self.number - 1 for id in ids.to_pylist())
        return np.fromiter(mine, bool, len(ids))


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """Where and how wide a network runs; never what the vectors are.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda, cuda:1, mps...; the fastest usable one where not given."}
    )
    batch_size: int | None = field(
        default=None,
        metadata={"help": "Items a forward pass takes; chosen by device, halved when memory runs out."},
    )
    threads: int | None = field(default=None, metadata={"help": "Decoding threads; one a core where not given."})
    engine: EngineChoice = field(
        default="auto",
        metadata={"help": "auto takes the fastest that gives the same vectors; torch runs the network as it is."},
    )

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name}={value!r} must be a whole number of at least 1")
        if self.engine not in get_args(EngineChoice):
            raise UsageError(f"engine={self.engine!r} is not one of {', '.join(get_args(EngineChoice))}")


@dataclass(frozen=True, slots=True)
class RunOptions(ComputeOptions):
    """Choices that change how an embedding run goes and never, but for ``compress``, what the vectors are."""

    checksum: bool = field(
        default=False,
        metadata={"help": "Compare every item's content, even where size and time are unchanged."},
    )
    prune: bool = field(default=False, metadata={"help": "Drop rows of this source whose items are gone."})
    force: bool = field(
        default=False, metadata={"help": "Prune even where that drops more than half of the source's rows."}
    )

    compress: bool = field(
        default=False,
        metadata={
            "help": "Make a store of less than half the size: vectors keep 11 bits a value, as 16-bit floats do, "
            "and move by 1/2048 at most."
        },
    )

    shard: str | None = field(
        default=None,
        metadata={"help": "I/N: embed this share of the items only, as 1/4; other processes take the others."},
    )

    def __post_init__(self) -> None:
        ComputeOptions.__post_init__(self)
        if Shard.parse(self.shard).total > 1 and self.prune:
            raise UsageError("prune goes with the whole source: run once more without shard when all of them are done")
        if self.force and not self.prune:
            raise UsageError("force only matters together with prune")
