"""What an attacker who can write an exported folder cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_script import Exported
from onnx import TensorProto, helper, numpy_helper

from embedpipe._utils.checksums import file_sha256, with_checksum, without_checksum
from embedpipe.errors import HeadError
from embedpipe.exporting import load_exported
from embedpipe.exporting.graph_checks import check_graph


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported.folder, tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the settings as an attacker does, who writes checksums too."""
    settings = without_checksum(json.loads((folder / "model.json").read_text()))
    change(settings)
    for name in settings["files"]:
        if len(name) < 200 and (folder / name).is_file():
            settings["files"][name] = file_sha256(folder / name)
    (folder / "model.json").write_text(json.dumps(with_checksum(settings)))


def test_script_is_never_read(folder: Path) -> None:
    (folder / "predict.py").write_text("raise SystemExit('run')")
    assert load_exported(folder).task == "classification"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.update(model="../model.onnx"), "names another model"),
        (lambda s: s["files"].update({"../other": "0" * 64}), "is missing or was changed"),
        (lambda s: s.update(format_version=99), "has format 99"),
        (lambda s: s.update(task="sorting"), "the task is unknown"),
        (lambda s: s.update(output="secrets"), "the outputs are unknown"),
        (lambda s: s.update(modality="sound"), "the modality is unknown"),
        (lambda s: s["preprocessing"].update(crop=[0, 0]), "is damaged or was edited"),
        (lambda s: s.pop("classes"), "is damaged or was edited"),
        (lambda s: s.update(classes=["cat"]), "the outputs do not fit the classes"),
        (lambda s: s.update(classes=["a", "b", "c"]), "the outputs do not fit the classes"),
        (lambda s: s.update(classes=["dog", "cat"]), "the classes are not sorted"),
        (lambda s: s.update(classes=["cat", 1]), "the classes are not of one type"),
        (lambda s: s.update(classes=[["a"], ["b"]]), "the classes are not of one type"),
        (lambda s: s.update(outputs=3), "the outputs do not fit the classes"),
        (lambda s: s.update(separator=7), "separator is not a text"),
        (lambda s: s.update(reject_above="x"), "reject_above is not a number"),
        (lambda s: s["preprocessing"].update(crop=[10**6, 10**6]), "the crop is too large"),
        (lambda s: s["files"].update({"x" * 300: "0" * 64}), "is missing or was changed"),
        (lambda s: s.update(modality="text"), "the tokenizer is missing"),
    ],
)
def test_settings_that_no_export_writes_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(HeadError, match=reason):
        load_exported(folder)


def test_changed_model_is_refused(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(HeadError, match=r"model.onnx' is missing or was changed"):
        load_exported(folder)


def graph(domain: str = "", initializer: onnx.TensorProto | None = None, inner: bool = False) -> onnx.ModelProto:
    """Return a model of one operator, which may be inside of a branch."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    tensors = [] if initializer is None else [initializer]
    node = helper.make_node("Identity", ["x" if initializer is None else initializer.name], ["y"], domain=domain)
    body = helper.make_graph([node], "body", [], [output], tensors)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    if inner:
        test = helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body)
        condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
        result = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])
        body = helper.make_graph([test], "outer", [given, condition], [result])
    else:
        body = helper.make_graph([node], "outer", [given], [output], tensors)
    versions = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(body, opset_imports=versions)


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "other.data"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str, inner: bool) -> None:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "model.onnx").write_bytes(graph(initializer=tensor, inner=inner).SerializeToString())
    with pytest.raises(HeadError, match=r"may only be in 'model.onnx.data' beside it"):
        check_graph(tmp_path / "model.onnx")


def test_sparse_weights_elsewhere_are_refused(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.zeros(1, np.float32), "w")
    values.ClearField("raw_data")
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="../secret")
    model = graph()
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64), "i"), [1])
    model.graph.sparse_initializer.append(sparse)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(HeadError, match=r"may only be in 'model.onnx.data' beside it"):
        check_graph(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("axes", "reason"),
    [([1, 2, 3], r"must have the shape \(16, 2\), got \(16,\)"), ([1, 2], r"got \(16, 3\)"), ([9], "cannot be run: ")],
)
def test_model_with_other_outputs_is_refused(exported: Exported, folder: Path, axes: list[int], reason: str) -> None:
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 32, 32, 3])
    outputs = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["outputs"], keepdims=0),
    ]
    over = numpy_helper.from_array(np.array(axes, np.int64), "axes")
    body = helper.make_graph(nodes, "other", [pixels], [outputs], [over])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rewrite(folder, lambda settings: None)
    with pytest.raises(HeadError, match=reason):
        load_exported(folder).predict(exported.photos)


def test_item_without_finite_outputs_fails_alone(exported: Exported, folder: Path) -> None:
    rows = np.arange(16, dtype=np.float32)[:, None] / 32
    values = np.hstack([rows, 1 - rows])
    values[3] = np.nan
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 32, 32, 3])
    outputs = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, [16, 2])
    nodes = [helper.make_node("Constant", [], ["outputs"], value=numpy_helper.from_array(values, "v"))]
    body = helper.make_graph(nodes, "constant", [pixels], [outputs])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    rewrite(folder, lambda settings: None)
    table = load_exported(folder).predict(exported.photos / "train")
    errors = table["error"].to_pylist()
    assert [place for place, error in enumerate(errors) if error] == [3]
    assert "the outputs of the model have NaN" in errors[3]
    assert table["label"][3].as_py() is None


def test_operators_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(graph("com.example").SerializeToString())
    with pytest.raises(HeadError, match=r"needs operators of com.example, which are code"):
        check_graph(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(HeadError, match="is not an ONNX model"):
        check_graph(tmp_path / "model.onnx")


def test_link_to_weights_elsewhere_is_refused(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")
    with pytest.raises(HeadError, match="is missing or was changed"):
        load_exported(folder)


def test_weights_that_are_not_listed_are_refused(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(bytes(4))
    (folder / "model.onnx.data").symlink_to(folder.parent / "secret")
    with pytest.raises(HeadError, match=r"model.onnx.data' is missing or was changed"):
        load_exported(folder)
