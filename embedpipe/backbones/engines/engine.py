"""An engine runs an `Embedder` on batches; torch's own is the measure of the others."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.device import arithmetic
from embedpipe._utils.precision import Precision

#: One batch: the tensors that an `Embedder` takes.
Inputs = tuple[Tensor, ...]

#: The vectors of one batch: float32 (n, dim) of each layer.
Outputs = list[npt.NDArray[np.float32]]

#: One forward pass at a time: hooks sit on shared modules, and the arithmetic's switches are the process's.
FORWARD = threading.Lock()


class Engine(ABC):
    """Runs batches one after the other; not safe to call from several threads at once.

    Attributes
    ----------
    name : str
        What runs, for the user: ``torch``, ``OpenVINO 2026.4``.
    reason : str
        Why this one, for the user.
    parts : int
        Into how many parts what torch takes best at a time is cut for it.
    names : tuple of str
        What the tensors are that it takes.
    final : bool
        False if another one may be better for more items.
    """

    name: str
    reason: str = ""
    parts: int = 1
    names: tuple[str, ...] = ()
    final: bool = True

    @abstractmethod
    def run(self, batches: Sequence[Inputs]) -> list[Outputs]:
        """Embed batches.

        Raises
        ------
        torch.OutOfMemoryError
            If a batch is too large for the device.
        """


class TorchEngine(Engine):
    """Runs a module by torch, operator by operator.

    Parameters
    ----------
    module : callable
        An `Embedder`, or a graph made of one.
    precision : str
    device : torch.device
    threads : int, optional
        Of torch's operators; as they are set if not given.
    name : str
    """

    def __init__(
        self,
        module: Callable[..., tuple[Tensor, ...]],
        precision: Precision,
        device: torch.device,
        threads: int | None = None,
        name: str = "torch",
    ) -> None:
        self.name = name
        self._module, self._precision, self._device, self._count = module, precision, device, threads

    def run(self, batches: Sequence[Inputs]) -> list[Outputs]:
        """Embed batches; see `Engine.run`."""
        with torch.inference_mode(), arithmetic(self._precision, self._device), _threads(self._count):
            return [[vectors.float().cpu().numpy() for vectors in self._module(*batch)] for batch in batches]


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run torch's operators on so many threads."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
