"""Graphs in int8: an activation of photos is part of the convolution before it, and columns of texts have scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedpipe.exporting.precision import to_int8
from embedpipe.exporting.script.table import load_model

ACTIVATIONS = {"Clip": ["zero", "six"], "Relu": []}


def write_network(file: Path, activation: str, random: np.random.Generator) -> None:
    """Write two convolutions with an activation between them; most of what it cuts off is far above 6."""
    weights = {"first": (8, 3, 3, 3), "second": (4, 8, 1, 1)}
    values = {name: random.normal(size=shape).astype(np.float32) for name, shape in weights.items()}
    values["first"][0] *= 40
    values |= {"zero": np.float32(0), "six": np.float32(6)}
    nodes = [
        helper.make_node("Conv", ["pixels", "first"], ["a"], "one"),
        helper.make_node(activation, ["a", *ACTIVATIONS[activation]], ["b"], "cut"),
        helper.make_node("Conv", ["b", "second"], ["outputs"], "two"),
    ]
    sides = [TensorProto.FLOAT, ["n", 3, 8, 8]], [TensorProto.FLOAT, ["n", 4, 6, 6]]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", *sides[0])],
        [helper.make_tensor_value_info("outputs", *sides[1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(file))


@pytest.mark.parametrize(("activation", "most"), [("Clip", 0.1), ("Relu", 0.03)])
def test_activations_are_part_of_the_convolution_before(tmp_path: Path, activation: str, most: float) -> None:
    random = np.random.default_rng(0)
    write_network(tmp_path / "exact.onnx", activation, random)
    batches = [{"pixels": random.uniform(size=(4, 3, 8, 8)).astype(np.float32)} for _ in range(4)]
    to_int8(tmp_path / "exact.onnx", tmp_path / "int8.onnx", "image", batches, "all")
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    operators = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= operators
    assert activation not in operators
    assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}
    exact, small = (load_model(str(tmp_path / name), "onnx", 1)(batches[0]) for name in ("exact.onnx", "int8.onnx"))
    assert np.abs(small - exact).max() < most * np.abs(exact).max()


def test_each_column_of_the_weights_of_texts_has_a_scale(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=(16, 4)).astype(np.float32)
    weights[:, 0] *= 100
    node = helper.make_node("MatMul", ["tokens", "weights"], ["outputs"], "product")
    sides = [helper.make_tensor_value_info(*each) for each in (("tokens", 1, ["n", 16]), ("outputs", 1, ["n", 4]))]
    graph = helper.make_graph([node], "network", [sides[0]], [sides[1]], [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(tmp_path / "exact.onnx"))
    to_int8(tmp_path / "exact.onnx", tmp_path / "int8.onnx", "text", [], "all")
    tokens = random.normal(size=(8, 16)).astype(np.float32)
    small = load_model(str(tmp_path / "int8.onnx"), "onnx", 1)({"tokens": tokens})
    exact = tokens @ weights
    assert (np.abs(small - exact).max(axis=0) < 0.03 * np.abs(exact).max(axis=0)).all()
