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
from embedpipe._utils.options import Precision

#: One batch: the input tensors of an `Embedder`.
Inputs = tuple[Tensor, ...]

#: The vectors of one batch: float32 (n, dim) of each layer.
Outputs = list[npt.NDArray[np.float32]]

#: Images in one pass through a network on a CPU. A fixed number, so that an image gets the same bits in any batch: for
#: other numbers of rows libraries choose other kernels, with another order of additions. A small number, so that the
#: caches of a core hold what a layer returns.
PART = 4

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


def in_passes(images: Tensor, size: int) -> list[Tensor]:
    """Return images (n, h, w, 3) in passes of one size; copies of the last image fill the last pass."""
    passes = list(torch.split(images, size))
    if passes and (missing := size - len(passes[-1])):
        passes[-1] = torch.cat([passes[-1], images[-1:].expand(missing, *images.shape[1:])])
    return passes


def join_passes(passes: Sequence[Outputs], count: int) -> Outputs:
    """Return the vectors of ``count`` images from those of their passes."""
    return [np.concatenate(layer)[:count] for layer in zip(*passes, strict=True)]


class TorchEngine(Engine):
    """Runs a module by torch, operator by operator; images on a CPU in passes of one size.

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
            return [self._run(batch) for batch in batches]

    def _run(self, batch: Inputs) -> Outputs:
        images = batch[0]
        if self._device.type != "cpu" or images.ndim != 4 or not len(images):  # bytes of texts are uint8 (n, length)
            return self._pass(batch)
        # Each thread has an image of a pass at least.
        passes = in_passes(images, max(PART, torch.get_num_threads()))
        return join_passes([self._pass((part,)) for part in passes], len(images))

    def _pass(self, batch: Inputs) -> Outputs:
        return [vectors.float().cpu().numpy() for vectors in self._module(*batch)]


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
