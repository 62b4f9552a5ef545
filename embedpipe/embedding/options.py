"""Options of an embedding run, shared by the command line and `embedpipe.embed`."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, require_one_of

EngineChoice = Literal["auto", "torch"]
RunnerChoice = Literal["local", "ray"]

#: The device that stands for all GPUs of this machine.
ALL_DEVICES = "all"


class Shard(NamedTuple):
    """The share ``number`` of ``total`` of the items, for one of several processes, counted from 1.

    The share depends on the id only, so processes agree even while source and store change.
    """

    number: int = 1
    total: int = 1

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Parse ``2/4``. None is the whole source. Raises UsageError for anything else."""
        if text is None:
            return cls()
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text) if isinstance(text, str) else None
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"{option('shard')} must be I/N with 1 <= I <= N, such as 1/4 to 4/4 for four processes, got {text!r}"
            )
        return cls(int(match[1]), int(match[2]))

    def marks(self, ids: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.bool_]:
        """Return the mask of the ids that belong to this shard."""
        mine = (zlib.crc32(id.encode()) % self.total == self.number - 1 for id in ids.to_pylist())
        return np.fromiter(mine, bool, len(ids))


@dataclass(frozen=True, slots=True)
class ComputeOptions:
    """Device, batch size, threads and engine. They do not change the vectors.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    device: str | None = field(
        default=None,
        metadata={"help": "Device: cpu, cuda, cuda:1, mps... Default: the GPU if it works, else the CPU."},
    )
    batch_size: int | None = field(
        default=None,
        metadata={"help": "Items per forward pass. Default: by device. Halved when memory runs out."},
    )
    threads: int | None = field(default=None, metadata={"help": "Decoding threads. Default: one per core."})
    engine: EngineChoice = field(
        default="auto",
        metadata={
            "help": "auto: the fastest engine that gives the same vectors; torch: the network without conversion."
        },
    )

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{option(name)} must be an integer >= 1, got {value!r}")
        require_one_of("engine", self.engine, get_args(EngineChoice))


@dataclass(frozen=True, slots=True)
class RunOptions(ComputeOptions):
    """Options of a run. Except ``compress``, they do not change the vectors."""

    device: str | None = field(
        default=None,
        metadata={
            "help": "Device: cpu, cuda, cuda:1, mps...; all: every GPU of this machine, by Ray. Default: the GPU if it "
            "works, else the CPU."
        },
    )
    add_layer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "SOURCE is a store: add the vectors of this layer of its backbone to every row, without changing "
            "the others. May be given several times."
        },
    )
    checksum: bool = field(
        default=False,
        metadata={"help": "Compare the content of every item, even if its size and time are unchanged."},
    )
    prune: bool = field(default=False, metadata={"help": "Drop rows of this source whose items no longer exist."})
    force: bool = field(
        default=False, metadata={"help": "Prune even if that drops more than half of the rows of this source."}
    )

    labels_from_source: bool = field(
        default=False,
        metadata={
            "help": "Take labels, splits and metadata from the source where `embedpipe label` set another value. "
            "Default: values set by hand are kept."
        },
    )

    compress: bool = field(
        default=False,
        metadata={
            "help": "Create a store of less than half the size: vectors are rounded to 16-bit precision, "
            "a relative error of at most 1/2048."
        },
    )

    shard: str | None = field(
        default=None,
        metadata={
            "help": "I/N: embed only this share of the items, such as 1/4; other processes embed the other shares."
        },
    )

    runner: RunnerChoice = field(
        default="local",
        metadata={
            "help": "local: embed in this process; ray: on the workers of a Ray cluster (extra ray): the one of "
            "RAY_ADDRESS, or else of this machine, which is started if there is none. "
            "The device all also means Ray, on all GPUs of this machine."
        },
    )
    workers: int | None = field(
        default=None, metadata={"help": "Most workers of the Ray cluster. Default: as many as it has room for."}
    )
    gpus_per_worker: float | None = field(
        default=None,
        metadata={"help": "GPUs of each Ray worker; 0.5: two share one. Default: 1 if the cluster has any."},
    )
    cpus_per_worker: int | None = field(
        default=None, metadata={"help": "Cores of each Ray worker. Default: those of a node, shared by its GPUs."}
    )

    def __post_init__(self) -> None:
        ComputeOptions.__post_init__(self)
        self._check_workers()
        if len(set(self.add_layer)) < len(self.add_layer):
            raise UsageError(f"{option('add_layer')} must name each layer once, got {list(self.add_layer)}")
        if Shard.parse(self.shard).total > 1 and self.prune:
            raise UsageError(
                f"{option('prune')} needs the whole source: run again without {option('shard', ...)} when all shards "
                "are done"
            )
        if self.force and not self.prune:
            raise UsageError(
                f"{option('force', True)} needs {option('prune', True)} as well: add it, or leave both out"
            )

    @property
    def on_ray(self) -> bool:
        """Whether workers of Ray embed: those of a cluster, or one for each GPU of this machine."""
        return self.runner == "ray" or self.device == ALL_DEVICES

    def _check_workers(self) -> None:
        require_one_of("runner", self.runner, get_args(RunnerChoice))
        for name, least in (("workers", 1), ("gpus_per_worker", 0), ("cpus_per_worker", 1)):
            value = getattr(self, name)
            if value is None:
                continue
            if not self.on_ray:
                raise UsageError(f"{option(name, value)} needs {option('runner', 'ray')}: add it, or leave both out")
            kind = (int, float) if name == "gpus_per_worker" else int
            if not isinstance(value, kind) or isinstance(value, bool) or not least <= value < 1e6:
                what = "a number" if name == "gpus_per_worker" else "an integer"
                raise UsageError(f"{option(name)} must be {what} >= {least}, got {value!r}")
