"""What embedpipe uses of Ray, in this process: tasks are run one after the other, by one worker."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pyarrow as pa


class RayError(Exception):
    """Something that went wrong on a cluster."""


class RayTaskError(RayError):
    """An error of the code that a worker ran."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass
class Dataset:
    """Blocks, and what makes others of them."""

    blocks: list[pa.Table]
    make: Callable[[], Callable[[pa.Table], pa.Table]] | None = None

    def map_batches(self, worker: Any, fn_constructor_args: tuple[Any, ...], **resources: Any) -> Dataset:
        assert resources["batch_format"] == "pyarrow"
        return Dataset(self.blocks, lambda: worker(*pickle.loads(pickle.dumps(fn_constructor_args))))

    def iter_batches(self, **options: Any) -> Iterator[pa.Table]:
        assert self.make
        try:
            work = self.make()
            yield from map(work, self.blocks)
        except Exception as error:
            raise RayTaskError(error) from error


def from_items(items: list[dict[str, Any]], override_num_blocks: int) -> Dataset:
    """Return the data set of as many blocks as items."""
    assert override_num_blocks == len(items)
    return Dataset([pa.Table.from_pylist([item]) for item in items])


class Ray(SimpleNamespace):
    """The module ``ray`` of a machine with one core."""

    def __init__(self) -> None:
        self.addresses: list[str | None] = []
        super().__init__(
            exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError),
            cloudpickle=pickle,
            put=lambda value: value,
            get=lambda value: value,
            is_initialized=lambda: bool(self.addresses),
            init=lambda address, **quiet: self.addresses.append(address),
            nodes=lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}, {"Alive": False, "Resources": {"CPU": 64.0}}],
        )
        self.data = SimpleNamespace(
            DataContext=SimpleNamespace(get_current=SimpleNamespace),
            ActorPoolStrategy=dict,
            from_items=from_items,
        )
