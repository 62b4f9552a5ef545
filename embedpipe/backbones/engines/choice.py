"""Choosing the engine of a network: the fastest on this machine whose vectors are those of torch."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from embedpipe._utils.device import cores
from embedpipe._utils.option_names import option
from embedpipe._utils.precision import Precision
from embedpipe.backbones.engines.engine import Engine, Inputs, Outputs, TorchEngine
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine, convert
from embedpipe.backbones.engines.saved_model import SavedModel
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import BackboneError, UsageError

#: For fewer items than this no other engine is tried.
FEWEST = 16

#: A number of items for which other engines are always tried.
MANY = 1 << 30

#: Exporting a network takes a few seconds; it is done if torch would take more seconds than this.
WORTH = 20.0

#: The same for an exported network, which is read, compiled and compared with torch in a second or two.
WORTH_READING = 3.0

#: The largest accepted distance of an engine's vectors from torch's in fp32, relative to their length, on the batches
#: of the trial. It depends on the rounding of the precision; in fp32 only the order of additions differs.
LARGEST_DISTANCE: dict[Precision, float] = {"fp32": 2e-3, "fp16": 2e-2, "bf16": 1e-1}

#: Rounds of timing. The fastest counts, as other programs can only slow a round down.
ROUNDS = 3


@dataclass(frozen=True)
class Trial:
    """The network and batches on which engines are compared.

    Parameters
    ----------
    embedder : Embedder
    spec : BackboneSpec
    device : torch.device
    names : tuple of str
        The names of the tensors of a batch.
    check : tuple of Tensor
        A small batch, on which vectors are compared.
    load : list of tuple of Tensor
        Batches of the size of a run, on which speed is compared.
    """

    embedder: Embedder
    spec: BackboneSpec
    device: torch.device
    names: tuple[str, ...]
    check: Inputs
    load: list[Inputs]

    @property
    def precision(self) -> Precision:
        """The precision of the spec."""
        return self.spec.precision

    @property
    def image(self) -> tuple[int, ...] | None:
        """The shape of an image; None for texts."""
        return tuple(self.check[0].shape[1:]) if self.spec.modality == "image" else None


def choose_engine(trial: Trial, plain: TorchEngine, items: int) -> Engine:
    """Return the engine that embeds ``items`` items soonest, with its reason in words.

    A network that was exported before is read from the cache folder. Otherwise it is exported. Both are done only if
    that saves time. An engine whose vectors differ from torch's is never chosen.
    """
    reasons = []
    try:
        seconds = items * _seconds_per_item(trial)
    except Exception as error:  # the network may be the user's own code, which may refuse the trial's input
        plain.reason = f"no other engine was tried, as the network fails on the trial: {_brief(error)}"
        return plain
    is_worth = seconds >= WORTH
    too_few = f"{items:,} items take about {seconds:.1f} s, which is too few to try other engines"
    if seconds < WORTH_READING:
        plain.final, plain.reason = False, too_few
        return plain
    if importlib.util.find_spec("openvino") is None:
        reasons.append("OpenVINO is not installed (pip install 'embedpipe[cpu]')")
    else:
        try:
            saved = SavedModel(trial.spec)
            engine = _openvino(saved, trial, plain, is_worth)
            reasons += [saved.damage] if saved.damage else []
            if engine is not None:
                engine.reason = "; ".join([engine.reason, *reasons])
                return engine
            if is_worth:
                reasons.append("OpenVINO is not faster on this machine")
        except UsageError:  # the cache folder is somebody else's
            raise
        except Exception as error:  # exporters raise many types of errors
            reasons.append(f"OpenVINO cannot be used: {_brief(error)}")
    if not is_worth:
        reasons.append(too_few)
        plain.final, plain.reason = False, "; ".join(reasons)
        return plain
    try:
        engine = _folded(trial, plain)
    except Exception as error:
        reasons.append(f"the network cannot be exported: {_brief(error)}")
        engine = plain
    engine.reason = "; ".join(reasons)
    return engine


def quantised_engine(trial: Trial) -> Engine:
    """Return the engine for precision int8. Raises BackboneError if the network or device does not support it."""
    from embedpipe.backbones.engines.quantising import is_quantised_form, quantise  # nncf belongs to an extra

    if trial.image is None:
        raise BackboneError(f"{option('precision', 'int8')} applies to images only: use bf16")
    if trial.device.type != "cpu":
        raise BackboneError(
            f"{option('precision', 'int8')} does not run on {trial.device}: use bf16, or {option('device', 'cpu')}"
        )
    saved = SavedModel(trial.spec)
    model = saved.read()
    if model is not None and not is_quantised_form(model, trial.embedder, trial.image):
        saved.drop("it is not the quantised form of this network")  # its code has changed
        model = None
    if model is None:
        try:
            plain = convert(trial.embedder, trial.check)
        except Exception as error:
            raise BackboneError(
                f"{option('precision', 'int8')} is not available: OpenVINO cannot read this network "
                f"({_brief(error)}). Use bf16"
            ) from error
        model = quantise(plain, trial.image)
        saved.write(model)
    engine = OpenVinoEngine(model, "int8", cores(), trial.image)
    engine.reason = "; ".join(filter(None, ["the only engine for int8", saved.damage]))
    return engine


def _openvino(saved: SavedModel, trial: Trial, plain: TorchEngine, is_worth: bool) -> Engine | None:
    """Return OpenVINO's engine, or None if it is not faster, or not exported yet and not worth exporting.

    Raises whatever the exporters raise, and BackboneError if its vectors differ from torch's.
    """
    model = saved.read()
    if model is not None:
        try:
            engine = _compiled(model, trial)
        except Exception as error:  # the network's code has changed: it is made again
            saved.drop(f"it cannot be used: {_brief(error)}")
            model = None
    if model is None:
        if not is_worth:
            return None
        model = convert(trial.embedder, trial.check)
        engine = _compiled(model, trial)
        saved.write(model)
    key = f"{engine.processor}, {cores()} threads, {trial.precision}"
    gain = saved.speedups.get(key, 0.0)
    if gain <= 1 and is_worth:  # measure again: an earlier measurement may have been disturbed
        gain = speedup(engine, plain, trial.load)
        saved.note(key, gain)
    engine.reason = f"{gain:.1f} times as fast as torch in {trial.precision}, measured on this machine"
    return engine if gain > 1 else None


def _compiled(model: Any, trial: Trial) -> OpenVinoEngine:
    """Return the engine of an exported network. Raises BackboneError if its vectors differ from torch's."""
    engine = OpenVinoEngine(model, trial.precision, cores(), trial.image)
    _require_same(engine, trial)
    return engine


def _folded(trial: Trial, plain: TorchEngine) -> TorchEngine:
    """Return torch's engine with batch-norms folded into the convolutions, or the plain one if folding is not faster.

    Raises whatever the exporter raises, and BackboneError if its vectors differ from torch's.
    """
    from embedpipe.backbones.engines.exporting import export, fold_batch_norms  # torch's exporter takes long to import

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
    # Check with another number of items too, in case the export fixed the number of its example.
    for batch in (trial.check, tuple(tensor[:1] for tensor in trial.check)):
        (expected,), (actual,) = exact.run([batch]), engine.run([batch])
        distance = largest_distance(expected, actual)
        if not distance <= LARGEST_DISTANCE[trial.precision]:
            raise BackboneError(f"its vectors differ from torch's by {distance:.1e} of their length")


def largest_distance(expected: Outputs, actual: Outputs) -> float:
    """Return the largest distance between two engines' vectors of an item, relative to the length of the first."""
    distances = [
        np.linalg.norm(a.astype(np.float64) - b, axis=1) / np.maximum(np.linalg.norm(a, axis=1), 1e-30)
        for a, b in zip(expected, actual, strict=True)
    ]
    return float(np.max(distances))


def speedup(engine: Engine, other: Engine, batches: Sequence[Inputs]) -> float:
    """Return how many times as fast an engine is as another, measured in alternation."""
    times = [(_seconds(other, batches), _seconds(engine, batches)) for _ in range(ROUNDS)]
    return min(before for before, _ in times) / min(after for _, after in times)


def _seconds_per_item(trial: Trial) -> float:
    """Return about how long torch takes for an item on all cores, in seconds.

    The processor time of one thread is measured, as other programs do not change it. Threads that wait for each other
    while the machine is busy take a hundred times as long.
    """
    engine = TorchEngine(trial.embedder, trial.precision, trial.device, threads=1)
    seconds = []
    for _ in range(2):  # the first pass warms up
        start = time.thread_time()
        engine.run([trial.check])
        seconds.append((time.thread_time() - start) / len(trial.check[0]) / cores())
    return min(seconds)


def _seconds(engine: Engine, batches: Sequence[Inputs]) -> float:
    start = time.perf_counter()
    engine.run(batches)
    return time.perf_counter() - start


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
