"""Which engine runs a network here: the fastest of those that give its vectors, found by measuring."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from embedpipe._utils.device import cores
from embedpipe._utils.precision import Precision
from embedpipe.backbones.engines.engine import Engine, Inputs, Outputs, TorchEngine
from embedpipe.backbones.engines.exporting import export, fold_batch_norms
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine, convert
from embedpipe.backbones.engines.saved_model import SavedModel
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import BackboneError

#: Fewer items than this are embedded before another engine could be looked at.
FEWEST = 16

#: So many that another engine is always looked at.
MANY = 1 << 30

#: Seconds of torch's work from which exporting a network, which takes a few, pays.
WORTH = 20.0

#: How far an engine's vectors may lie from torch's in fp32, relative to their length, on the pictures or texts of the
#: trial. The declared precision moves them; in fp32 only the order of additions does.
FARTHEST: dict[Precision, float] = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 1e-1}

#: Rounds of timing; the fastest counts, as whatever else runs only slows.
ROUNDS = 3


@dataclass(frozen=True)
class Trial:
    """What engines are tried on.

    Parameters
    ----------
    embedder : Embedder
    spec : BackboneSpec
    device : torch.device
    names : tuple of str
        What the tensors of a batch are.
    check : tuple of Tensor
        A small batch of several items, on which vectors are compared.
    load : list of tuple of Tensor
        Batches as a run has them, on which speed is compared.
    """

    embedder: Embedder
    spec: BackboneSpec
    device: torch.device
    names: tuple[str, ...]
    check: Inputs
    load: list[Inputs]

    @property
    def precision(self) -> Precision:
        """The declared one."""
        return self.spec.precision

    @property
    def image(self) -> tuple[int, ...] | None:
        """The shape of an image."""
        return tuple(self.check[0].shape[1:]) if self.spec.modality == "image" else None


def choose_engine(trial: Trial, plain: TorchEngine, items: int) -> Engine:
    """Return the engine that will embed so many items soonest, with its reason in words.

    A network that was exported before is read from the cache folder; else it is only exported where that pays.
    An engine whose vectors are not torch's is never taken.
    """
    refused = []
    try:  # the first pass makes what is made on first use
        seconds = min(_seconds(plain, [trial.check]) for _ in range(2)) / len(trial.check[0])
    except Exception as error:  # of the user's own code, maybe, which has its reasons not to like a trial
        plain.reason = f"nothing else was looked at, as the network fails on the trial: {_brief(error)}"
        return plain
    pays = items * seconds >= WORTH
    if importlib.util.find_spec("openvino") is None:
        refused.append("OpenVINO is not installed (pip install 'embedpipe[cpu]')")
    else:
        try:
            if (engine := _openvino(trial, plain, pays)) is not None:
                return engine
            if pays:
                refused.append("OpenVINO is no faster here")
        except Exception as error:  # exporters raise nearly anything on what they do not know
            refused.append(f"OpenVINO cannot be used: {_brief(error)}")
    if not pays:
        refused.append(f"{items:,} items take it about {items * seconds:.0f} s: too few to look for a faster engine")
        plain.final, plain.reason = False, "; ".join(refused)
        return plain
    try:
        engine = _folded(trial, plain)
    except Exception as error:
        refused.append(f"no graph can be made of it: {_brief(error)}")
        engine = plain
    engine.reason = "; ".join(refused)
    return engine


def quantised_engine(trial: Trial) -> Engine:
    """Return the engine of a spec in int8. Raises BackboneError if there is none for this network or device."""
    from embedpipe.backbones.engines.quantising import is_quantised_form, quantise  # needs nncf, of the extra

    if trial.image is None:
        raise BackboneError("precision='int8' is for images: take bf16")
    if trial.device.type != "cpu":
        raise BackboneError(f"precision='int8' does not run on {trial.device}: take bf16, or device='cpu'")
    saved = SavedModel(trial.spec)
    model = saved.read()
    if model is not None and not is_quantised_form(model, trial.embedder, trial.image):
        saved.drop()  # it is damaged, or the network's code is another by now
        model = None
    if model is None:
        try:
            plain = convert(trial.embedder, trial.check)
        except Exception as error:
            raise BackboneError(
                f"precision='int8': OpenVINO cannot read this network ({_brief(error)}); take bf16"
            ) from error
        model = quantise(plain, trial.image)
        saved.write(model)
    engine = OpenVinoEngine(model, "int8", cores(), trial.image)
    engine.reason = "nothing else runs int8"
    return engine


def _openvino(trial: Trial, plain: TorchEngine, pays: bool) -> Engine | None:
    """Return OpenVINO's engine, or None where it is no faster, or not made yet and not worth making.

    Raises whatever the exporters raise, and BackboneError if its vectors are not torch's.
    """
    saved = SavedModel(trial.spec)
    model = saved.read()
    if model is not None:
        try:
            engine = _compiled(model, trial)
        except Exception:  # it is damaged, or the network's code is another by now: it is made again
            saved.drop()
            model = None
    if model is None:
        if not pays:
            return None
        model = convert(trial.embedder, trial.check)
        engine = _compiled(model, trial)
        saved.write(model)
    here = f"{engine.processor}, {cores()} threads, {trial.precision}"
    gain = saved.speedups.get(here, 0.0)
    if gain <= 1 and pays:  # what was slower once may only have been disturbed
        gain = speedup(engine, plain, trial.load)
        saved.note(here, gain)
    engine.reason = f"{gain:.1f} times as fast as torch in {trial.precision} when it was measured here"
    return engine if gain > 1 else None


def _compiled(model: Any, trial: Trial) -> OpenVinoEngine:
    """Return the engine of an exported network. Raises BackboneError if its vectors are not torch's."""
    engine = OpenVinoEngine(model, trial.precision, cores(), trial.image)
    _require_same(engine, trial)
    return engine


def _folded(trial: Trial, plain: TorchEngine) -> TorchEngine:
    """Return torch's engine with batch-norms folded into the convolutions, or the plain one if that is no slower.

    Raises whatever the exporter raises, and BackboneError if its vectors are not torch's.
    """
    graph = export(trial.embedder, trial.check).module()
    folded = fold_batch_norms(graph)
    if not folded:
        return plain
    engine = TorchEngine(
        graph, trial.precision, trial.device, threads=cores(), name=f"torch, {folded} batch-norms folded"
    )
    _require_same(engine, trial)
    return engine if speedup(engine, plain, trial.load) > 1 else plain


def _require_same(engine: Engine, trial: Trial) -> None:
    exact = TorchEngine(trial.embedder, "fp32", trial.device, cores())
    # Another number of items too, so that nothing was fixed at the one that was exported.
    for batch in (trial.check, tuple(tensor[:1] for tensor in trial.check)):
        (expected,), (given,) = exact.run([batch]), engine.run([batch])
        distance = farthest(expected, given)
        if not distance <= FARTHEST[trial.precision]:
            raise BackboneError(f"its vectors lie {distance:.1e} of their length from torch's")


def farthest(expected: Outputs, given: Outputs) -> float:
    """Return the largest distance between two engines' vectors of an item, relative to its length."""
    distances = [
        np.linalg.norm(a.astype(np.float64) - b, axis=1) / np.maximum(np.linalg.norm(a, axis=1), 1e-30)
        for a, b in zip(expected, given, strict=True)
    ]
    return float(np.max(distances))


def speedup(engine: Engine, other: Engine, batches: Sequence[Inputs]) -> float:
    """Return how many times as fast an engine is as another one, measured in turns."""
    times = [(_seconds(other, batches), _seconds(engine, batches)) for _ in range(ROUNDS)]
    return min(slow for slow, _ in times) / min(fast for _, fast in times)


def _seconds(engine: Engine, batches: Sequence[Inputs]) -> float:
    start = time.perf_counter()
    engine.run(batches)
    return time.perf_counter() - start


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
