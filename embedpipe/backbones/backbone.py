"""A frozen network that turns payloads into items, and items into vectors."""

from __future__ import annotations

import contextlib
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
from embedpipe._utils.option_names import option
from embedpipe._utils.options import Precision
from embedpipe.backbones.engines.choice import FEWEST, Trial, choose_engine, quantised_engine, speedup
from embedpipe.backbones.engines.engine import FORWARD, PART, Engine, TorchEngine
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.network import NO_COUNTS, ImageNetwork, TextNetwork
from embedpipe.backbones.spec import BackboneSpec, random_notes
from embedpipe.errors import BackboneError, UsageError

Vectors = dict[str, npt.NDArray[np.float32]]


class Item(NamedTuple):
    """One payload, prepared for the network.

    Parameters
    ----------
    value
        The prepared payload: `Backbone.forward` takes a sequence of these.
    size : int
        Its length, such as the tokens of a text: items of similar sizes share a batch with little padding.
    weight : int
        How much memory it takes relative to other items: all tokens of a text.
    counts : mapping of str to int
        Events to report to the user, summed over a run; see `embedpipe.embedding.summary`.
    text : str, optional
        The beginning of the text.
    perceptual_hash : str, optional
        Of a picture: see `embedpipe.decoding.hashing.perceptual`.
    """

    value: Any
    size: int = 1
    weight: int = 1
    counts: Mapping[str, int] = NO_COUNTS
    text: str | None = None
    perceptual_hash: str | None = None


@dataclasses.dataclass(frozen=True)
class Backbone(ABC):
    """A frozen network, the layers to capture, and the device it runs on; made by `load_backbone`.

    Backbones of one process share their networks, so never train one.

    Parameters
    ----------
    spec : BackboneSpec
        Everything that decides the vectors.
    network : ImageNetwork or TextNetwork
        On ``device``, in eval mode, without gradients.
    device : torch.device
    engine : Engine, optional
        Runs the network; None runs it by torch, operator by operator.
    engines : dict of str to Engine
        Engines that were chosen before, by fingerprint of the spec.
    loading : float
        When loading it began, in seconds of the epoch; 0 if that is unknown.
    """

    spec: BackboneSpec
    network: ImageNetwork | TextNetwork = dataclasses.field(repr=False)
    device: torch.device
    engine: Engine | None = dataclasses.field(default=None, repr=False)
    engines: dict[str, Engine] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    loading: float = dataclasses.field(default=0.0, repr=False, compare=False)

    #: So many items are sorted by size together, so that items of similar sizes share a batch.
    sorted_items: ClassVar[int] = 1

    @property
    def provenance(self) -> dict[str, str]:
        """The origin of the weights, the engine, and the versions of the libraries."""
        packages = ("embedpipe", "torch", *self.network.libraries)
        versions = {name: importlib.metadata.version(name) for name in packages}
        return {"weights": self.network.origin, "engine": self.engine_name, **versions}

    @property
    def notes(self) -> list[str]:
        """Notes on the weights for the user: that they are random, or what was adapted in loading them."""
        return [*random_notes([self.spec]), *self.network.notes]

    @property
    def engine_name(self) -> str:
        """The name of the engine, such as ``torch`` or ``OpenVINO 2026.4``."""
        return self.engine.name if self.engine is not None else "torch"

    @property
    def engine_reason(self) -> str:
        """Why this engine was chosen; empty if no other was tried."""
        return self.engine.reason if self.engine is not None else ""

    @property
    def usual_batch(self) -> int:
        """The default number of items in a forward pass."""
        return 256 if self.device.type == "cuda" else max(32, 2 * PART * cores())

    def to(self, device: torch.device | str) -> Backbone:
        """Return this backbone on another device, with a copy of the network; itself if it is on that device already.

        Raises UsageError if the device does not exist or does not work.
        """
        target = device if isinstance(device, torch.device) else choose_device(device)[0]
        if target == self.device:
            return self
        if self.spec.precision == "int8":
            raise UsageError(
                f"{option('precision', 'int8')} runs on the CPU only: load the backbone with "
                f"{option('precision', 'bf16')} for another device"
            )
        network = dataclasses.replace(self.network, module=copy.deepcopy(self.network.module).to(target))
        return dataclasses.replace(self, network=network, device=target, engine=None, engines={})

    @abstractmethod
    def prepare(self, payload: Any) -> Item:
        """Turn a payload of a source into an item for the network. Thread-safe.

        Raises
        ------
        DecodeError
            If the payload cannot be decoded.
        """

    def room(self, payload: Any) -> contextlib.AbstractContextManager[None]:
        """Return a context in which there is memory to prepare a payload."""
        return contextlib.nullcontext()

    @property
    def steps(self) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
        """The steps of `prepare`, each with the name of its stage; the last one returns the Item."""
        return (("decode", self.prepare),)

    def collate(self, values: Sequence[Any]) -> Any:
        """Return the values as one batch on the device, which `forward` takes as well."""
        return values

    def forward(self, values: Sequence[Any] | npt.NDArray[Any] | Tensor) -> dict[str, npt.NDArray[np.float32]]:
        """Embed the values of items that `prepare` returned.

        Returns
        -------
        dict of str to ndarray of float32, shape (n, dim)
            Column of the store -> vectors, for each layer of the spec.

        Raises
        ------
        BackboneError
            If a value has the wrong shape or type, or the network was made trainable.
        torch.OutOfMemoryError
            If the batch is too large for the device.
        """
        return self.spec.vectors(self._captured(values))

    @abstractmethod
    def _captured(self, values: Any) -> Vectors:
        """Return the vectors of the layers that the network gives."""

    def reduced(self, spec: BackboneSpec) -> Self:
        """Return this backbone with the layers of ``spec``, some of which are reduced from those of the network."""
        return dataclasses.replace(self, spec=spec)

    def accelerated(self, items: int) -> Self:
        """Return this backbone on the engine for a job of so many items; see `choose_engine`.

        Later calls reuse the engine. The vectors are the same within the declared precision. The same job has the same
        engine again, whatever ran before.
        """
        if self.device.type != "cpu" or self.one_thread or items < FEWEST or self.spec.precision == "int8":
            return self
        return self._on(lambda trial: choose_engine(trial, self._by_torch(trial.names)))

    def ready(self) -> Self:
        """Return this backbone with the engine that its precision requires. Raises BackboneError if there is none."""
        return self._on(quantised_engine) if self.spec.precision == "int8" else self

    def _on(self, choose: Callable[[Trial], Engine]) -> Self:
        """Return this backbone on the engine that ``choose`` returns for a trial, or that was chosen before."""
        key = self.spec.captured.fingerprint()
        engine = self.engines.get(key)
        if engine is None:
            trial = self._trial()
            with FORWARD:
                engine = choose(trial)
            engine.names = trial.names
            self.engines[key] = engine
        return dataclasses.replace(self, engine=engine)

    def gain(self, precision: Precision) -> float:
        """Measure how many times as fast the network runs on this machine in another precision.

        The gain is 1 for word vectors and on Apple's GPU. Raises whatever the network raises in that precision.
        """
        if self.one_thread or self.device.type == "mps":
            return 1.0
        other = dataclasses.replace(self, spec=dataclasses.replace(self.spec, precision=precision), engine=None)
        trial = self._trial()
        batches = [tuple(tensor.to(self.device) for tensor in batch) for batch in trial.load]
        # Each precision runs on its fastest engine, or the gain would include that of the engine.
        engines = [b.accelerated(FEWEST).engine or b._by_torch(trial.names) for b in (self, other)]
        with FORWARD:
            return speedup(engines[1], engines[0], batches)

    @property
    def one_thread(self) -> bool:
        """Whether the network only looks up vectors, on one thread."""
        return isinstance(self.network, TextNetwork) and self.network.one_thread

    @abstractmethod
    def _trial(self) -> Trial:
        """Return the batches on which engines are compared."""

    def _by_torch(self, names: tuple[str, ...]) -> TorchEngine:
        embedder = Embedder(self.network, self.spec.captured.layers, names)
        return TorchEngine(embedder, self.spec.precision, self.device, 1 if self.one_thread else cores())

    def _run(
        self, batches: Sequence[tuple[Tensor, ...]], counts: Sequence[int], names: tuple[str, ...]
    ) -> list[Vectors]:
        """Run the network on batches and return each batch's vectors by column.

        ``counts`` are the items of each batch, ``names`` the names of its tensors.
        """
        self._check_frozen()
        engine = self.engine if self.engine is not None and self.engine.names == names else self._by_torch(names)
        with FORWARD:
            outputs = engine.run(batches)
        layers = self.spec.captured.layers
        for vectors, count in zip(outputs, counts, strict=True):
            for layer, vector in zip(layers, vectors, strict=True):
                if vector.shape != (count, layer.dim):
                    raise BackboneError(
                        f"layer {layer.name!r} must return shape ({count}, {layer.dim}), got {vector.shape}"
                    )
        return [{layer.column: v for layer, v in zip(layers, vectors, strict=True)} for vectors in outputs]

    def _check_frozen(self) -> None:
        module = self.network.module
        if any(m.training for m in module.modules()) or any(p.requires_grad for p in module.parameters()):
            raise BackboneError(
                "the network must be frozen, but it is in train mode or has trainable parameters, so its vectors would "
                "change: call .eval() and .requires_grad_(False), or train a copy of the network"
            )
