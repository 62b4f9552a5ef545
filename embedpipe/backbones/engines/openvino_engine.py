"""OpenVINO on the processor: the extra ``cpu``. One stream a core, each with a part of the batch of its own.

A network that is cut into streams never waits for its slowest core between two layers, which on two cores is a tenth to
a half of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedpipe._utils.importing import import_without_telemetry
from embedpipe._utils.precision import Precision
from embedpipe.backbones.engines.engine import Engine, Inputs, Outputs
from embedpipe.backbones.engines.exporting import export, quiet
from embedpipe.backbones.layers.embedder import Embedder

#: Images that one stream takes at a time; of fixed shape, which OpenVINO plans better than a varying one.
PART = 4

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
        library = import_without_telemetry("openvino")
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


def convert(embedder: Embedder, example: Inputs) -> Any:
    """Return a network in OpenVINO's own form. Raises whatever torch or OpenVINO raise where that cannot be."""
    library = import_without_telemetry("openvino")
    with quiet():
        return library.convert_model(export(embedder, example))
