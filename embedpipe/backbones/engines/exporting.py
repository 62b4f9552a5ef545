"""Exporting an `Embedder` to a graph of torch's operators, for other engines and for folding batch-norms."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch.export import Dim, ExportedProgram
from torch.nn.utils.fusion import fuse_conv_bn_weights

from embedpipe.backbones.engines.engine import Inputs
from embedpipe.backbones.layers.embedder import Embedder

_OPERATORS = torch.ops.aten


def export(embedder: Embedder, example: Inputs) -> ExportedProgram:
    """Export an embedder for batches of any number of items, and texts of any length.

    Raises
    ------
    Exception
        Many types, if torch cannot export the network.
    """
    shapes = [dict.fromkeys(range(2 if tensor.ndim == 2 else 1), Dim.DYNAMIC) for tensor in example]
    with quiet(), torch.inference_mode(False), torch.no_grad():
        return torch.export.export(embedder, example, dynamic_shapes={"tensors": tuple(shapes)})


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warnings and output of exporters."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "nncf", "openvino")]
    before = [logger.level for logger in loggers]
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def fold_batch_norms(graph: fx.GraphModule) -> int:
    """Fold each batch-norm that follows a convolution into its weights; return how many were folded.

    In eval mode both are linear, so the result is the same up to rounding, and one pass over memory is saved.
    """
    folded = 0
    for norm in list(graph.graph.nodes):
        if norm.target is not _OPERATORS.batch_norm.default:
            continue
        conv = norm.args[0]
        if conv.target is not _OPERATORS.conv2d.default or len(conv.users) > 1:
            continue
        arguments = [*conv.args, None][:3] + list(conv.args[3:])
        weight, bias = (_value(graph, argument) for argument in arguments[1:3])
        gamma, beta, mean, variance = (_value(graph, argument) for argument in norm.args[1:5])
        fused = fuse_conv_bn_weights(weight, bias, mean, variance, norm.args[7], gamma, beta)
        with graph.graph.inserting_before(conv):
            for place, values in enumerate(fused, start=1):
                name = f"_folded_{folded}_{place}"
                layout = torch.channels_last if values.ndim == 4 else torch.contiguous_format
                graph.register_buffer(name, values.detach().contiguous(memory_format=layout))
                arguments[place] = graph.graph.get_attr(name)
        conv.args = tuple(arguments)
        norm.replace_all_uses_with(conv)
        graph.graph.erase_node(norm)
        folded += 1
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return folded


def _value(graph: fx.GraphModule, node: Any) -> Any:
    """Return the tensor of a node; None for no node."""
    if node is None:
        return None
    value: Any = graph
    for part in node.target.split("."):
        value = getattr(value, part)
    return value
