"""A frozen network at work: payloads to pixels, pixels to vectors."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.metadata
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe.backbones.device import choose_device
from embedpipe.backbones.layers import check_output, pool, run_layers
from embedpipe.backbones.network import Network
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.decoding import decode_image, to_pixels
from embedpipe.errors import BackboneError

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}

#: Made at run time, so that its parts are unknown to type checkers.
_CUDNN: Any = torch.backends.cudnn

#: One forward pass at a time: hooks sit on shared modules, and the arithmetic's switches are the process's.
_FORWARD = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A frozen network, what is taken from it, and where it runs.

    Made by `load_backbone`. Networks are shared between backbones of the same process, so never train one.

    Parameters
    ----------
    spec : BackboneSpec
        What decides the vectors.
    network : Network
        On ``device``, in eval mode, without gradients.
    device : torch.device
        Where it runs.
    """

    spec: BackboneSpec
    network: Network = dataclasses.field(repr=False)
    device: torch.device

    @property
    def provenance(self) -> dict[str, str]:
        """Where the weights came from, and the versions of the libraries that run."""
        packages = ("embedpipe", "torch", "torchvision", "timm", "pillow")
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

    def prepare(self, payload: Any) -> npt.NDArray[np.uint8]:
        """Decode an encoded image, or take a PIL image or array, and resize and crop it for the network.

        Safe to call from several threads.

        Returns
        -------
        ndarray of uint8, shape (h, w, 3)

        Raises
        ------
        DecodeError
            If the payload is no picture.
        """
        return to_pixels(decode_image(payload), self.spec.preprocessing)

    def forward(self, batch: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """Embed a batch.

        Parameters
        ----------
        batch : ndarray of uint8, shape (n, h, w, 3)
            What `prepare` gives, stacked.

        Returns
        -------
        dict of str to ndarray of float32, shape (n, dim)
            The vectors of each layer of the spec, by column.

        Raises
        ------
        BackboneError
            If the batch has another shape, or something has made the network trainable.
        torch.OutOfMemoryError
            If the batch is too large for the device.
        """
        expected = (*self.spec.preprocessing.crop, 3)
        if batch.dtype != np.uint8 or batch.shape[1:] != expected:
            raise BackboneError(
                f"the batch is {batch.dtype} {batch.shape}, not uint8 (n, {', '.join(map(str, expected))})"
            )
        self._check_frozen()
        layers = {layer.name: layer for layer in self.spec.layers}

        def take(name: str, output: Any) -> Tensor:
            check_output(name, output, len(batch))
            return pool(self.network, output, layers[name].pooling, name)

        with _FORWARD, torch.inference_mode(), self._arithmetic():
            vectors = run_layers(self.network, list(layers), self._normalise(batch), take)
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

    def _normalise(self, batch: npt.NDArray[np.uint8]) -> Tensor:
        """Return torchvision's ``ToTensor`` and ``Normalize`` of a batch: the same arithmetic, on the device."""
        pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if self.device.type == "cuda":
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        pixels = pixels.to(self.device).permute(0, 3, 1, 2)  # channels last in memory, as the network is
        recipe = self.spec.preprocessing
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (recipe.mean, recipe.std))
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

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
