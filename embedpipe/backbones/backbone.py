"""A frozen network at work: payloads to what it takes, and that to vectors."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedpipe._utils.device import choose_device, cores
from embedpipe._utils.precision import Precision
from embedpipe.backbones.engines.choice import FEWEST, MANY, Trial, choose_engine, quantised_engine, speedup
from embedpipe.backbones.engines.engine import FORWARD, Engine, TorchEngine
from embedpipe.backbones.engines.openvino_engine import PART
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.network import NOTHING, ImageNetwork, TextNetwork
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import BackboneError, UsageError

Vectors = dict[str, npt.NDArray[np.float32]]


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
    engine : Engine, optional
        What runs it; torch, operator by operator, where there is none.
    engines : dict of str to Engine
        Those found before, by fingerprint.
    """

    spec: BackboneSpec
    network: ImageNetwork | TextNetwork = dataclasses.field(repr=False)
    device: torch.device
    engine: Engine | None = dataclasses.field(default=None, repr=False)
    engines: dict[str, Engine] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    #: How many items are put in order of size together, so that those of like sizes share a batch.
    sorted_items: ClassVar[int] = 1

    @property
    def provenance(self) -> dict[str, str]:
        """Where the weights came from, and the versions of the libraries that run."""
        packages = ("embedpipe", "torch", *self.network.libraries)
        versions = {name: importlib.metadata.version(name) for name in packages}
        return {"weights": self.network.origin, "engine": self.engine_name, **versions}

    @property
    def engine_name(self) -> str:
        """What runs the network, in words."""
        return self.engine.name if self.engine is not None else "torch"

    @property
    def reason(self) -> str:
        """Why that runs it, in words; empty where nothing was looked at."""
        return self.engine.reason if self.engine is not None else ""

    @property
    def usual_batch(self) -> int:
        """Items a forward pass takes where nobody says."""
        return 256 if self.device.type == "cuda" else max(32, 2 * PART * cores())

    def to(self, device: torch.device | str) -> Backbone:
        """Return this backbone on another device, with a copy of the network there; itself if it is there.

        Raises UsageError if there is no such device, or it does not work.
        """
        place = device if isinstance(device, torch.device) else choose_device(device)[0]
        if place == self.device:
            return self
        if self.spec.precision == "int8":
            raise UsageError("a backbone in int8 runs on the processor only: load one in bf16 for another device")
        network = dataclasses.replace(self.network, module=copy.deepcopy(self.network.module).to(place))
        return dataclasses.replace(self, network=network, device=place, engine=None, engines={})

    @abstractmethod
    def prepare(self, payload: Any) -> Item:
        """Turn a payload of a source into what the network takes. Safe to call from several threads.

        Raises
        ------
        DecodeError
            If the payload is nothing that the network embeds.
        """

    @property
    def steps(self) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
        """What `prepare` does, step by step, each with the name of its stage: the last one gives the Item."""
        return (("decode", self.prepare),)

    def collate(self, values: Sequence[Any]) -> Any:
        """Return what `forward` takes instead of the values, ready on the device."""
        return values

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

    def accelerated(self, items: int) -> Self:
        """Return this backbone on the engine that embeds so many items soonest here; see `choose_engine`.

        What is found stays for the next call. The vectors are the same within the declared precision.
        """
        if self.device.type != "cpu" or self.one_thread or items < FEWEST or self.spec.precision == "int8":
            return self
        return self._on(lambda trial: choose_engine(trial, self._by_torch(trial.names), items))

    def ready(self) -> Self:
        """Return this backbone with the engine that its precision needs. Raises BackboneError if it cannot be had."""
        return self._on(quantised_engine) if self.spec.precision == "int8" else self

    def _on(self, choose: Callable[[Trial], Engine]) -> Self:
        """Return this backbone on the engine that is chosen in a trial, or was before."""
        key = self.spec.fingerprint()
        engine = self.engines.get(key)
        if engine is None:
            trial = self._trial()
            with FORWARD:
                engine = choose(trial)
            engine.names = trial.names
            if engine.final:
                self.engines[key] = engine
        return dataclasses.replace(self, engine=engine)

    def gain(self, precision: Precision) -> float:
        """Return how many times as fast the network runs here in another precision, measured.

        1 where there is nothing to gain. Raises whatever the network raises in that precision.
        """
        if self.one_thread or self.device.type == "mps":
            return 1.0
        other = dataclasses.replace(self, spec=dataclasses.replace(self.spec, precision=precision), engine=None)
        trial = self._trial()
        batches = [tuple(tensor.to(self.device) for tensor in batch) for batch in trial.load]
        # Each on its own best engine, or the gain would be the engine's.
        engines = [one.accelerated(MANY).engine or one._by_torch(trial.names) for one in (self, other)]
        with FORWARD:
            return speedup(engines[1], engines[0], batches)

    @property
    def one_thread(self) -> bool:
        """Whether the network only looks vectors up, on one thread."""
        return isinstance(self.network, TextNetwork) and self.network.one_thread

    @abstractmethod
    def _trial(self) -> Trial:
        """Return what engines are tried on."""

    def _by_torch(self, names: tuple[str, ...]) -> TorchEngine:
        embedder = Embedder(self.network, self.spec.layers, names)
        return TorchEngine(embedder, self.spec.precision, self.device, 1 if self.one_thread else cores())

    def _run(
        self, batches: Sequence[tuple[Tensor, ...]], counts: Sequence[int], names: tuple[str, ...]
    ) -> list[Vectors]:
        """Run the network on batches of so many items, of tensors of these names; return the vectors by column."""
        self._check_frozen()
        engine = self.engine if self.engine is not None and self.engine.names == names else self._by_torch(names)
        with FORWARD:
            outputs = engine.run(batches)
        layers = self.spec.layers
        for vectors, count in zip(outputs, counts, strict=True):
            for layer, vector in zip(layers, vectors, strict=True):
                if vector.shape != (count, layer.dim):
                    raise BackboneError(
                        f"layer {layer.name!r} gave {vector.shape} for {count} items of {layer.dim} values"
                    )
        return [{layer.column: v for layer, v in zip(layers, vectors, strict=True)} for vectors in outputs]

    def _check_frozen(self) -> None:
        module = self.network.module
        if any(part.training for part in module.modules()) or any(p.requires_grad for p in module.parameters()):
            raise BackboneError(
                "something has put the network into train mode or made its parameters trainable, so its vectors would "
                "change: call .eval() and .requires_grad_(False) on it, or load a network of your own for training"
            )
