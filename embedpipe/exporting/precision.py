"""Graphs in float16 and int8, by the converters of ONNX Runtime, and as OpenVINO's own format."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from embedpipe._utils.importing import import_extra, import_without_telemetry
from embedpipe.backbones.engines.exporting import quiet
from embedpipe.exporting.graph import EXTRA, MODEL
from embedpipe.sources.options import Modality

#: Number of photos that set the ranges of activations in int8.
CALIBRATION = 128
#: The model in OpenVINO's format: a graph and its weights.
OPENVINO_MODEL = "model.xml"
#: Attempts at int8, from the smallest to the most exact: convolutions of single channels lose most, and stay float32.
ATTEMPTS = ("all", "but depthwise")
#: Operators of photos in int8. An activation belongs to the convolution before it, which would else round what it cuts.
OPERATORS = ("Conv", "MatMul", "Gemm", "Relu", "Clip")

Batches = Sequence[dict[str, Any]]


def to_float16(model: Path) -> None:
    """Convert a graph to float16 in place; inputs and outputs keep their types."""
    onnx = import_extra("onnx", EXTRA)
    converter = import_extra("onnxruntime.transformers.float16", EXTRA)
    with quiet():
        onnx.save(converter.convert_float_to_float16(onnx.load(str(model)), keep_io_types=True), str(model))


def to_int8(source: Path, to: Path, modality: Modality, calibration: Batches, attempt: str) -> None:
    """Write a graph with weights, and of images activations, of 8 bits.

    Parameters
    ----------
    source, to : pathlib.Path
        The graph in float32, and that in int8.
    modality : str
        The ranges of the activations of texts are found anew for each batch, as they depend on its words.
    calibration : sequence of dict
        Batches of photos that set the ranges of activations.
    attempt : str
        One of `ATTEMPTS`.
    """
    library = import_extra("onnxruntime.quantization", EXTRA)
    onnx = import_extra("onnx", EXTRA)
    prepared, disabled = to.with_name("prepared.onnx"), logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with quiet():
            # symbolic shapes of a transformer cannot be inferred in full, and graphs without them are as exact
            import_extra("onnxruntime.quantization.shape_inference", EXTRA).quant_pre_process(
                str(source), str(prepared), skip_symbolic_shape=True
            )
            model = onnx.load(str(prepared))
            model.graph.ClearField("value_info")  # shapes are inferred again; those of torch 2.11 contradict the graph
            onnx.save(model, str(prepared))
            weights = library.QuantType.QInt8
            if modality == "text":
                library.quantize_dynamic(str(prepared), str(to), weight_type=weights, per_channel=True)
                return
            kept = _depthwise(model) if attempt == ATTEMPTS[1] else []

            class Reader(library.CalibrationDataReader):  # type: ignore[misc,name-defined]
                """Gives the batches one after another."""

                def __init__(self) -> None:
                    self._batches: Iterator[dict[str, Any]] = iter(calibration)

                def get_next(self) -> dict[str, Any] | None:
                    return next(self._batches, None)

            library.quantize_static(
                str(prepared),
                str(to),
                Reader(),
                quant_format=library.QuantFormat.QDQ,
                activation_type=library.QuantType.QUInt8,
                weight_type=weights,
                per_channel=True,
                nodes_to_exclude=kept,
                op_types_to_quantize=[*OPERATORS],
            )
            _drop_unused(onnx, to)
    finally:
        logging.disable(disabled)
        prepared.unlink(missing_ok=True)


def _drop_unused(onnx: Any, file: Path) -> None:
    """Drop the constants of operators that have gone, of which ONNX Runtime warns whenever it loads the graph."""
    model = onnx.load(str(file))
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    onnx.save(model, str(file))


def _depthwise(model: Any) -> list[str]:
    """Return the names of convolutions whose groups have one channel."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(part.name == "group" and part.i > 1 for part in node.attribute)
    ]


def to_openvino(folder: Path, *, half: bool) -> None:
    """Replace the ONNX graph in a folder by a model in OpenVINO's format."""
    library = import_without_telemetry("openvino")
    with quiet():
        model = library.convert_model(str(folder / MODEL))
        library.save_model(model, str(folder / OPENVINO_MODEL), compress_to_fp16=half)
    for path in folder.glob(f"{MODEL}*"):
        path.unlink()
