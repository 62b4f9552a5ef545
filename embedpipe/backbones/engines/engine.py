"""Engines run an `Embedder` on batches; the others are compared with torch's."""

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

#: One batch: the input tensors of an `Embedder`.
Inputs = tuple[Tensor, ...]

#: The vectors of one batch: float32 (n, dim) of each layer.
Outputs = list[npt.NDArray[np.float32]]

#: Held during a forward pass, since hooks are set on shared modules and torch's precision settings are the process's.
FORWARD = threading.Lock()


class Engine(ABC):
    """Runs batches one after the other. Not thread-safe.

    Attributes
    ----------
    name : str
        The engine's name for the user: ``torch``, ``OpenVINO 2026.4``.
    reason : str
        Why this engine was chosen, for the user.
    parts : int
        This engine's best batch is smaller than torch's by this factor.
    names : tuple of str
        The names of its input tensors.
    """

    name: str
    reason: str = ""
    parts: int = 1
    names: tuple[str, ...] = ()

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
        An `Embedder`, or its exported graph.
    precision : str
    device : torch.device
    threads : int, optional
        The threads of torch's operators; by default torch's present setting.
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
    """Run torch's operators on ``count`` threads inside the block."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
