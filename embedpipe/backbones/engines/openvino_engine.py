"""OpenVINO on the processor: the extra ``cpu``. One stream a core, each with a part of the batch of its own.

A network that is cut into streams never waits for its slowest core between two layers, which on two cores is a tenth to
a half of the time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedpipe._utils.config import cache_folder
from embedpipe._utils.precision import Precision
from embedpipe.backbones.engines.engine import Engine, Inputs, Outputs
from embedpipe.backbones.engines.exporting import export, quiet
from embedpipe.backbones.engines.intel import import_intel
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.backbones.spec import BackboneSpec

#: Images that one stream takes at a time; of fixed shape, which OpenVINO plans better than a varying one.
PART = 4

#: Exported networks that stay in the cache folder: the last used ones.
KEPT = 8

#: What OpenVINO calls the arithmetic. In a quantised network it is that of the layers that are left.
_HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenVinoEngine(Engine):
    """Runs a network that OpenVINO has compiled for this processor.

    Parameters
    ----------
    model : openvino.Model
    precision : str
    streams : int
        How many parts run at a time, each on one core.
    image : tuple of int, optional
        The shape of an image, (h, w, 3); texts have none.
    """

    #: Its streams have one core each, and smaller caches.
    parts = 2

    def __init__(self, model: Any, precision: Precision, streams: int, image: tuple[int, ...] | None = None) -> None:
        library = import_intel("openvino")
        self.name = f"OpenVINO {library.__version__.split('-')[0]}"
        self._image = image
        if image is not None:
            model = model.clone()
            model.reshape([PART, *image])
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_CPU_PINNING": False,  # decoding and other programs use the same cores
        }
        core = library.Core()
        self.processor = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._compiled = core.compile_model(model, "CPU", settings)
        self._queue = library.AsyncInferQueue(self._compiled, streams)
        self._queue.set_callback(_take)

    def run(self, batches: Sequence[Inputs]) -> list[Outputs]:
        """Embed batches; see `Engine.run`."""
        done: list[Outputs] = [[]] * len(batches)
        arrays = [[tensor.numpy() for tensor in batch] for batch in batches]
        if self._image is None:
            for at, batch in enumerate(arrays):
                self._queue.start_async(batch, (done, at), share_inputs=True)
            self._queue.wait_all()
            return done
        return [self._run_images(images) for (images,) in arrays]

    def _run_images(self, images: np.ndarray[Any, Any]) -> Outputs:
        starts = range(0, len(images), PART)
        parts: list[Outputs] = [[]] * len(starts)
        inputs = [images[start : start + PART] for start in starts]
        if missing := -len(images) % PART:
            inputs[-1] = np.concatenate([inputs[-1], np.zeros((missing, *images.shape[1:]), np.uint8)])
        for at, part in enumerate(inputs):
            self._queue.start_async([part], (parts, at), share_inputs=True)
        self._queue.wait_all()
        return [np.concatenate(layer)[: len(images)] for layer in zip(*parts, strict=True)]


def _take(request: Any, place: tuple[list[Outputs], int]) -> None:
    done, at = place
    done[at] = [np.array(tensor.data, np.float32) for tensor in request.output_tensors]


class SavedModel:
    """An exported network in the cache folder, of one spec and of one set of library versions.

    Parameters
    ----------
    spec : BackboneSpec
        Decoding does not matter, nor a precision but int8, whose network is another one.
    """

    def __init__(self, spec: BackboneSpec) -> None:
        library = import_intel("openvino")
        declared = spec.to_dict()
        declared["preprocessing"].pop("decode", None)
        versions = [library.__version__, torch.__version__]
        if spec.precision == "int8":
            versions.append(importlib.metadata.version("nncf"))
        else:
            del declared["precision"]
        key = json.dumps([declared, versions], sort_keys=True)
        self._library = library
        self.folder = cache_folder() / "engines" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def read(self) -> Any | None:
        """Return the network, or None if it is not there or cannot be read."""
        file = self.folder / "model.xml"
        if not file.exists():
            return None
        try:
            model = self._library.Core().read_model(file)
            self.folder.touch()
        except (RuntimeError, OSError):
            self.drop()
            return None
        return model

    def drop(self) -> None:
        """Forget the network, which is not what it should be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, model: Any) -> None:
        """Keep a network, in one step; whoever was first wins. A cache that cannot be written is none."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(prefix="new-", dir=self.folder.parent))
        except OSError:
            return
        try:
            self._library.save_model(model, made / "model.xml", compress_to_fp16=False)
            made.rename(self.folder)
        except (RuntimeError, OSError):
            shutil.rmtree(made, ignore_errors=True)
        _forget_old(self.folder.parent)

    @property
    def speedups(self) -> dict[str, float]:
        """What was measured here: how many times as fast as torch, by processor, threads and precision."""
        try:
            found = json.loads((self.folder / "speedups.json").read_text())
            return {str(key): float(value) for key, value in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def note(self, key: str, speedup: float) -> None:
        """Keep a measurement."""
        try:
            (self.folder / "speedups.json").write_text(json.dumps({**self.speedups, key: speedup}))
        except OSError:
            return


def convert(embedder: Embedder, example: Inputs) -> Any:
    """Return a network in OpenVINO's own form. Raises whatever torch or OpenVINO raise where that cannot be."""
    library = import_intel("openvino")
    with quiet():
        return library.convert_model(export(embedder, example))


def _forget_old(folder: Path) -> None:
    try:
        oldest = sorted(folder.iterdir(), key=lambda one: -one.stat().st_mtime)[KEPT:]
    except OSError:
        return
    for old in oldest:
        shutil.rmtree(old, ignore_errors=True)
