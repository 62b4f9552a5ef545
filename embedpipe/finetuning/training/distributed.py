"""The processes that train one network together: this one, or those that `accelerate launch` or torchrun began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe.errors import EmbedpipeError, UsageError
from embedpipe.finetuning.training.launcher import launched_with

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

        Raises UsageError if they were launched badly, or were all to train on one GPU, and MissingExtraError without
        the extra.
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
        """Return what the first process makes, in all of them; what it raises of ours, all raise."""
        if self.count == 1:
            return make()
        made: list[Any] = [None, None]
        refused: EmbedpipeError | None = None
        if self.first:
            try:
                made[0] = make()
            except EmbedpipeError as error:
                refused, made[1] = error, str(error)
        import_extra("accelerate.utils", "finetune").broadcast_object_list(made)
        if made[1] is not None:
            raise refused or UsageError(made[1])
        found: _T = made[0]
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
