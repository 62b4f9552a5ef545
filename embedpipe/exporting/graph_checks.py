"""What a graph of an exported folder may hold: no operators of others, no weights outside of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedpipe._utils.importing import import_extra
from embedpipe.errors import HeadError

#: The file of large weights.
WEIGHTS = "model.onnx.data"
#: Operators of ONNX itself, and those that ONNX Runtime has built in.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


def check_graph(path: Path) -> None:
    """Raise HeadError for a graph with operators of others, or with weights outside of its folder."""
    onnx = import_extra("onnx", "onnx")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise HeadError(f"{str(path)!r} is not an ONNX model: {error}") from error
    foreign = sorted({part.domain for part in model.opset_import} - {*DOMAINS, *(f.domain for f in model.functions)})
    if foreign:
        raise HeadError(f"{str(path)!r} needs operators of {', '.join(foreign)}, which are code: export the head again")
    for tensor in _tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value != WEIGHTS:
                raise HeadError(
                    f"{str(path)!r} has weights in {entry.value!r}, and they may only be in {WEIGHTS!r} beside it: "
                    "export the head again"
                )


def _tensors(model: Any) -> Iterator[Any]:
    """Yield the tensors of all graphs of a model, those of sparse ones too."""
    pending = [model.graph, *model.functions]
    while pending:
        part = pending.pop()
        yield from getattr(part, "initializer", ())
        sparse = [*getattr(part, "sparse_initializer", ())]
        for attribute in (
            *(each for node in part.node for each in node.attribute),
            *getattr(part, "attribute_proto", ()),
        ):
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
            pending += [graph for graph in (attribute.g, *attribute.graphs) if graph.ByteSize()]
        for tensor in sparse:
            yield from (tensor.values, tensor.indices)
