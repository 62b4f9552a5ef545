"""The processes that train one network together: this one, or those that `accelerate launch` or torchrun began."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn

from embedpipe.errors import UsageError
from embedpipe.importing import import_extra

_T = TypeVar("_T")

#: How long a process waits for the others, while the first embeds the pictures, say; one that dies ends them all.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Workers:
    """How many processes train together, and which of them this is.

    Parameters
    ----------
    count, index : int
    device : str, optional
        The one that is this process's own, where there are several.
    """

    count: int = 1
    index: int = 0
    device: str | None = None

    @classmethod
    def launched(cls, device: str | None) -> Workers:
        """Return those that a launcher began, connected with each other, or this one alone.

        Raises UsageError if all of them were to train on one GPU, and MissingExtraError without the extra.
        """
        if launched_with() == 1:
            return cls()
        if device is not None and ":" in device:
            raise UsageError(f"device={device!r} is one, and {launched_with()} processes train: leave the number out")
        accelerate = import_extra("accelerate", "finetune")
        state = accelerate.PartialState(cpu=device == "cpu", timeout=PATIENCE)
        own = "cpu" if state.device.type == "cpu" else str(state.device)
        return cls(state.num_processes, state.process_index, own)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.index == 0

    @property
    def share(self) -> slice:
        """Which elements of a sequence are this one's."""
        return slice(self.index, None, self.count)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of all processes' values."""
        if self.count == 1:
            return values
        summed: Tensor = import_extra("accelerate.utils", "finetune").reduce(values.to(self.device), "sum")
        return summed

    def gathered(self, value: _T) -> list[_T]:
        """Return all processes' values, by index."""
        if self.count == 1:
            return [value]
        found: list[_T] = import_extra("accelerate.utils", "finetune").gather_object([value])
        return found

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Return what the first process makes, in all of them."""
        if self.count == 1:
            return make()
        made = [make() if self.first else None]
        found: _T = import_extra("accelerate.utils", "finetune").broadcast_object_list(made)[0]
        return found

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gathered(None)

    def together(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients that are means over the processes, and weights that are the first's."""
        if self.count == 1:
            return network
        devices = None if self.device in (None, "cpu") else [torch.device(self.device)]
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)


def launched_with() -> int:
    """Return how many processes a launcher began, this one among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_of_launched() -> bool:
    """Return whether this process speaks for those that a launcher began."""
    return int(os.environ.get("RANK", "0")) == 0


def require_one_process(verb: str) -> None:
    """Raise UsageError if a launcher began several processes, which a verb has no use for."""
    if launched_with() > 1:
        raise UsageError(f"`{verb}` runs in one process, and {launched_with()} were launched: call it by itself")
