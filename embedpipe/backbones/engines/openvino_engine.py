"""The engine of OpenVINO on the CPU (extra ``cpu``): one stream per core, each with a part of the batch.

Cores of separate streams do not wait for each other after each layer, which saves a tenth to a half of the time on two
cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from embedpipe._utils.importing import import_without_telemetry
from embedpipe._utils.options import Precision
from embedpipe.backbones.engines.engine import PART, Engine, Inputs, Outputs, in_passes, join_passes
from embedpipe.backbones.layers.embedder import Embedder

#: OpenVINO's names of the precisions. In a quantised network the precision is that of the layers in floating point.
_HINTS: dict[Precision, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


class OpenVinoEngine(Engine):
    """Runs a network that OpenVINO compiled for this CPU.

    Parameters
    ----------
    model : openvino.Model
    precision : str
    streams : int
        The number of parts that run at the same time, each on one core.
    image : tuple of int, optional
        The shape of an image, (h, w, 3); None for texts.
    """

    #: A stream has one core and its caches.
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
            "ENABLE_CPU_PINNING": False,  # decoding uses the same cores
        }
        core = library.Core()
        self.processor = str(core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._compiled = core.compile_model(model, "CPU", settings)
        self._queue = library.AsyncInferQueue(self._compiled, streams)
        self._queue.set_callback(_store_result)

    def run(self, batches: Sequence[Inputs]) -> list[Outputs]:
        """Embed batches; see `Engine.run`."""
        if self._image is not None:
            return [self._run_images(images) for (images,) in batches]
        results: list[Outputs] = [[]] * len(batches)
        for i, batch in enumerate(batches):
            self._queue.start_async([tensor.numpy() for tensor in batch], (results, i), share_inputs=True)
        self._queue.wait_all()
        return results

    def _run_images(self, images: Tensor) -> Outputs:
        passes = [part.numpy() for part in in_passes(images, PART)]
        results: list[Outputs] = [[]] * len(passes)
        for i, part in enumerate(passes):
            self._queue.start_async([part], (results, i), share_inputs=True)
        self._queue.wait_all()
        return join_passes(results, len(images))


def _store_result(request: Any, target: tuple[list[Outputs], int]) -> None:
    results, i = target
    results[i] = [np.array(tensor.data, np.float32) for tensor in request.output_tensors]


def convert(embedder: Embedder, example: Inputs) -> Any:
    """Convert a network to OpenVINO's format. Raises whatever torch or OpenVINO raise for what they cannot convert."""
    from embedpipe.backbones.engines.exporting import export, quiet  # torch's exporter takes long to import

    library = import_without_telemetry("openvino")
    with quiet():
        return library.convert_model(export(embedder, example))
