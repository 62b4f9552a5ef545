"""The processes that train one network together, started by `accelerate launch` or torchrun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from embedpipe._utils.importing import import_extra
from embedpipe._utils.option_names import option
from embedpipe.errors import EmbedpipeError, UsageError
from embedpipe.finetuning.training.launcher import launched_processes

_T = TypeVar("_T")

#: How long a process waits for the others, for example while the first embeds the images. A dead process ends all.
TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class Workers:
    """The number of processes that train together, and the position of this one.

    Parameters
    ----------
    count, index : int
    device : str, optional
        The device of this process, if there are several processes.
    """

    count: int = 1
    index: int = 0
    device: str | None = None

    @classmethod
    def launched(cls, device: str | None) -> Workers:
        """Connect the processes that a launcher has started; without a launcher there is only this one.

        Raises
        ------
        UsageError
            If the launcher's environment variables are incomplete, or ``device`` is one GPU for several processes.
        MissingExtraError
            If accelerate is not installed and there are several processes.
        """
        if launched_processes() == 1:
            return cls()
        if device is not None and ":" in device:
            raise UsageError(
                f"{option('device')} must have no number if {launched_processes()} processes train, got {device!r}: "
                "each takes its "
                "own GPU"
            )
        accelerate = import_extra("accelerate", "finetune")
        state = accelerate.PartialState(cpu=device == "cpu", timeout=TIMEOUT)
        name = "cpu" if state.device.type == "cpu" else str(state.device)
        return cls(state.num_processes, state.process_index, name)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.index == 0

    @property
    def share(self) -> slice:
        """The elements of a sequence that this process takes."""
        return slice(self.index, None, self.count)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of the values over all processes."""
        if self.count == 1:
            return values
        summed: Tensor = import_extra("accelerate.utils", "finetune").reduce(values.to(self.device), "sum")
        return summed

    def gather(self, value: _T) -> list[_T]:
        """Return the values of all processes, in their order."""
        if self.count == 1:
            return [value]
        values: list[_T] = import_extra("accelerate.utils", "finetune").gather_object([value])
        return values

    def from_first(self, make: Callable[[], _T]) -> _T:
        """Call ``make`` in the first process and return its value in all; an EmbedpipeError is raised in all."""
        if self.count == 1:
            return make()
        shared: list[Any] = [None, None]  # value, error message
        first_error: EmbedpipeError | None = None
        if self.first:
            try:
                shared[0] = make()
            except EmbedpipeError as error:
                first_error, shared[1] = error, str(error)
        import_extra("accelerate.utils", "finetune").broadcast_object_list(shared)
        if shared[1] is not None:
            raise first_error or UsageError(shared[1])
        value: _T = shared[0]
        return value

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.gather(None)

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return a module that averages gradients over the processes and starts with the weights of the first."""
        if self.count == 1:
            return network
        devices = None if self.device in (None, "cpu") else [torch.device(self.device)]
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)
