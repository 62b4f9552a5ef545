"""A frozen network at work: payloads to what it takes, and that to vectors."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe.backbones.device import choose_device
from embedpipe.backbones.layers import Batch, check_output, pool, run_layers
from embedpipe.backbones.network import NOTHING, ImageNetwork, TextNetwork
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import BackboneError

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}

#: Made at run time, so that its parts are unknown to type checkers.
_CUDNN: Any = torch.backends.cudnn

#: One forward pass at a time: hooks sit on shared modules, and the arithmetic's switches are the process's.
_FORWARD = threading.Lock()


class Item(NamedTuple):
    """One payload, ready for the network.

    Parameters
    ----------
    value
        What `Backbone.forward` takes a sequence of.
    size : int
        What it is padded to: items of like sizes share a batch with little padding.
    weight : int
        What it holds in memory, relative to others: all tokens of a text.
    counts : mapping of str to int
        What to tell the user of, summed over a run; see `embedpipe.embedding.summary`.
    text : str, optional
        The beginning of the text it was.
    """

    value: Any
    size: int = 1
    weight: int = 1
    counts: Mapping[str, int] = NOTHING
    text: str | None = None


@dataclasses.dataclass(frozen=True)
class Backbone(ABC):
    """A frozen network, what is taken from it, and where it runs.

    Made by `load_backbone`. Networks are shared between backbones of the same process, so never train one.

    Parameters
    ----------
    spec : BackboneSpec
        What decides the vectors.
    network : ImageNetwork or TextNetwork
        On ``device``, in eval mode, without gradients.
    device : torch.device
        Where it runs.
    """

    spec: BackboneSpec
    network: ImageNetwork | TextNetwork = dataclasses.field(repr=False)
    device: torch.device

    #: How many batches of items are put in order of size together, so that those of like sizes share one.
    sorted_batches: ClassVar[int] = 1

    @property
    def provenance(self) -> dict[str, str]:
        """Where the weights came from, and the versions of the libraries that run."""
        packages = ("embedpipe", "torch", *self.network.libraries)
        return {"weights": self.network.origin, **{name: importlib.metadata.version(name) for name in packages}}

    @property
    def usual_batch(self) -> int:
        """Items a forward pass takes where nobody says."""
        return 256 if self.device.type == "cuda" else 32

    def to(self, device: torch.device | str) -> Backbone:
        """Return this backbone on another device, with a copy of the network there; itself if it is there.

        Raises UsageError if there is no such device, or it does not work.
        """
        place = device if isinstance(device, torch.device) else choose_device(device)[0]
        if place == self.device:
            return self
        module = copy.deepcopy(self.network.module).to(place)
        return dataclasses.replace(self, network=dataclasses.replace(self.network, module=module), device=place)

    @abstractmethod
    def prepare(self, payload: Any) -> Item:
        """Turn a payload of a source into what the network takes. Safe to call from several threads.

        Raises
        ------
        DecodeError
            If the payload is nothing that the network embeds.
        """

    @abstractmethod
    def forward(self, values: Sequence[Any]) -> dict[str, npt.NDArray[np.float32]]:
        """Embed the values of items that `prepare` gave.

        Returns
        -------
        dict of str to ndarray of float32, shape (n, dim)
            The vectors of each layer of the spec, by column.

        Raises
        ------
        BackboneError
            If a value is none of this backbone's, or something has made the network trainable.
        torch.OutOfMemoryError
            If the batch is too large for the device.
        """

    def _run(self, batch: Batch, n: int) -> dict[str, npt.NDArray[np.float32]]:
        """Run the network on a batch of ``n`` on the device, and return the pooled layers by column."""
        self._check_frozen()
        layers = {layer.name: layer for layer in self.spec.layers}

        def take(name: str, output: Any) -> Tensor:
            check_output(name, output, n)
            return pool(self.network, output, layers[name].pooling, name, batch)

        alone = isinstance(self.network, TextNetwork) and self.network.one_thread
        with _FORWARD, torch.inference_mode(), self._arithmetic(), _threads(1 if alone else torch.get_num_threads()):
            vectors = run_layers(self.network, list(layers), batch, take)
        for name, vector in vectors.items():
            if vector.shape[1] != layers[name].dim:
                raise BackboneError(
                    f"layer {name!r} gave {vector.shape[1]} values where it gave {layers[name].dim} before"
                )
        return {layers[name].column: vector.cpu().numpy() for name, vector in vectors.items()}

    def _check_frozen(self) -> None:
        module = self.network.module
        if any(part.training for part in module.modules()) or any(p.requires_grad for p in module.parameters()):
            raise BackboneError(
                "something has put the network into train mode or made its parameters trainable, so its vectors would "
                "change: call .eval() and .requires_grad_(False) on it, or load a network of your own for training"
            )

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Hold the arithmetic to the declared precision, whatever the process has set."""
        half = _HALVES.get(self.spec.precision)
        exact = self.device.type == "cuda" and half is None
        # cuDNN's convolutions use TF32 unless told otherwise: 10 bits of mantissa where fp32 has 23.
        switches: list[Any] = [torch.backends.cuda.matmul, _CUDNN.conv] if exact else []
        before = [switch.fp32_precision for switch in switches]
        try:
            for switch in switches:
                switch.fp32_precision = "ieee"
            with torch.autocast(self.device.type, dtype=half, enabled=half is not None):
                yield
        finally:
            for switch, value in zip(switches, before, strict=True):
                switch.fp32_precision = value


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Run torch's operators on so many threads."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
