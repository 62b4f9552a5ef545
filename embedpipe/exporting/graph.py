"""A network as an ONNX graph: what torch writes, without what it notes of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.importing import import_extra
from embedpipe.backbones.engines.engine import Inputs
from embedpipe.backbones.engines.exporting import export as export_program
from embedpipe.backbones.engines.exporting import quiet
from embedpipe.errors import BackboneError
from embedpipe.exporting.network import ExportedNetwork

EXTRA = "onnx"
#: The version of ONNX's operators: ONNX Runtime 1.14 and later run it.
OPSET = 18
OUTPUT = "outputs"
MODEL = "model.onnx"
#: From this size on, weights are in a file of their own: protobuf ends at 2 GiB.
LARGE = 1_900_000_000


def write_graph(network: ExportedNetwork, example: Inputs, names: tuple[str, ...], folder: Path) -> None:
    """Write a network as ``model.onnx``, for batches of any number of items.

    Raises
    ------
    BackboneError
        If torch cannot write the network as a graph.
    MissingExtraError
        If onnx is not installed.
    """
    onnx = import_extra("onnx", EXTRA)
    import_extra("onnxscript", EXTRA)
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    try:
        with quiet(), torch.inference_mode(False), torch.no_grad():
            program = torch.onnx.export(
                export_program(network, example),  # type: ignore[arg-type]
                dynamo=True,
                opset_version=OPSET,
                input_names=list(names),
                output_names=[OUTPUT],
                verbose=False,
            )
            assert program is not None
            program.save(str(folder / MODEL), external_data=size > LARGE)
    except Exception as error:
        raise BackboneError(
            f"the network {type(network.embedder.module).__name__} cannot be written as an ONNX graph: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}. Use a backbone of timm or "
            "torchvision, or a transformer"
        ) from error
    model = onnx.load(str(folder / MODEL), load_external_data=False)
    _forget_machine(model)
    onnx.save(model, str(folder / MODEL))


def _forget_machine(model: Any) -> None:
    """Remove the stack traces, with paths of this machine, that torch notes beside every operator."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
        if hasattr(part, "doc_string"):
            part.ClearField("doc_string")
    model.producer_name, model.producer_version = "embedpipe", ""
