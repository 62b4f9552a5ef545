"""Choosing the engine of a network: OpenVINO's, where its vectors are those of torch."""

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
from embedpipe._utils.options import Precision
from embedpipe.backbones.engines.engine import Engine, Inputs, Outputs, TorchEngine
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine, convert
from embedpipe.backbones.engines.saved_model import SavedModel
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import BackboneError, UsageError

#: For fewer items than this the network runs by torch: exporting it takes longer than it saves. A number of items, and
#: not a measured time or what is in the cache, so that the same job has the same engine, and the same vectors, again.
FEWEST = 512

#: An engine must be at least this many times as fast as torch. Networks near 1 are common, near this they are rare: so
#: that a busy machine does not decide.
LEAST_SPEEDUP = 0.67

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


def choose_engine(trial: Trial, plain: TorchEngine) -> Engine:
    """Return the engine for many items, with its reason in words: OpenVINO, torch with folded batch-norms, or torch.

    A network that was exported before is read from the cache folder. Otherwise it is exported. An engine whose vectors
    differ from torch's, or that is much slower, is never chosen.
    """
    reasons = []
    try:
        plain.run([trial.check])
    except Exception as error:  # the network may be the user's own code, which may refuse the trial's input
        plain.reason = f"no other engine was tried, as the network fails on the trial: {_brief(error)}"
        return plain
    if importlib.util.find_spec("openvino") is None:
        reasons.append("OpenVINO is not installed (pip install 'embedpipe[cpu]')")
    else:
        try:
            saved = SavedModel(trial.spec)
            engine = _openvino(saved, trial, plain)
            reasons += [saved.damage] if saved.damage else []
            if engine is not None:
                engine.reason = "; ".join([engine.reason, *reasons])
                return engine
            reasons.append("OpenVINO is slower on this machine")
        except UsageError:  # the cache folder is somebody else's
            raise
        except Exception as error:  # exporters raise many types of errors
            reasons.append(f"OpenVINO cannot be used: {_brief(error)}")
    try:
        chosen = _folded(trial, plain)
    except Exception as error:
        reasons.append(f"the network cannot be exported: {_brief(error)}")
        chosen = plain
    chosen.reason = "; ".join(reasons)
    return chosen


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


def _openvino(saved: SavedModel, trial: Trial, plain: TorchEngine) -> Engine | None:
    """Return OpenVINO's engine, or None if it is much slower than torch.

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
        model = convert(trial.embedder, trial.check)
        engine = _compiled(model, trial)
        saved.write(model)
    key = f"{engine.processor}, {cores()} threads, {trial.precision}"
    gain = saved.speedups.get(key, 0.0)
    if gain < LEAST_SPEEDUP:  # measure again: an earlier measurement may have been disturbed
        gain = speedup(engine, plain, trial.load)
        saved.note(key, gain)
    engine.reason = f"{gain:.1f} times as fast as torch in {trial.precision}, measured on this machine"
    return engine if gain >= LEAST_SPEEDUP else None


def _compiled(model: Any, trial: Trial) -> OpenVinoEngine:
    """Return the engine of an exported network. Raises BackboneError if its vectors differ from torch's."""
    engine = OpenVinoEngine(model, trial.precision, cores(), trial.image)
    _require_same(engine, trial)
    return engine


def _folded(trial: Trial, plain: TorchEngine) -> TorchEngine:
    """Return torch's engine with batch-norms folded into the convolutions, or the plain one if that is much slower.

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
    return engine if speedup(engine, plain, trial.load) >= LEAST_SPEEDUP else plain


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


def _seconds(engine: Engine, batches: Sequence[Inputs]) -> float:
    start = time.perf_counter()
    engine.run(batches)
    return time.perf_counter() - start


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
