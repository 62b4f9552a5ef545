"""Networks of several architectures, with heads of several kinds, as ONNX graphs that give what torch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from sklearn.ensemble import RandomForestClassifier
from tiny_transformer import save

import embedpipe
from embedpipe.backbones.backbone import Backbone
from embedpipe.errors import UsageError
from embedpipe.estimators import (
    FaissKNNClassifier,
    MultiLabelClassifier,
    RejectingClassifier,
    TemperatureCalibratedClassifier,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
)
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.exporting.comparing import outputs_of, tensors_of
from embedpipe.exporting.graph import write_graph
from embedpipe.exporting.graph_checks import check_graph
from embedpipe.exporting.network import ExportedNetwork, require_exportable
from embedpipe.exporting.precision import to_int8
from embedpipe.exporting.script.table import load_model
from embedpipe.heads.scoring import FitReport

TEXTS = ["the cat sits outside", "a man", "a longer text " * 20]
NETWORKS = (
    *("torchvision/vgg11", "torchvision/inception_v3", "torchvision/resnet50", "torchvision/efficientnet_b0"),
    *("torchvision/vit_b_16", "timm/vit_tiny_patch16_224", "timm/convnext_atto"),
)
HEADS = {
    "ridge": TunedRidgeClassifier(),
    "logreg": TunedLogisticRegression(),
    "lda": ShrunkenLDA(),
    "centroid": CentroidClassifier(),
    "calibrated": TemperatureCalibratedClassifier(TunedRidgeClassifier()),
    "rejecting": RejectingClassifier(TunedLogisticRegression(), share=0.2),
    "knn": FaissKNNClassifier(5, weights="softmax", metric="cosine"),
    "numbers": TunedRidge(),
    "several": MultiLabelClassifier(TunedLogisticRegression(), ["a", "b", "c"]),
}


def head_of(backbone: Backbone, estimator: Any, classes: int = 3) -> embedpipe.Head:
    """Return a head that was fitted on random vectors of a backbone."""
    dim = sum(layer.dim for layer in backbone.spec.layers)
    random = np.random.default_rng(0)
    X, y = random.standard_normal((60, dim)).astype(np.float32), np.arange(60) % classes
    X[:, 0] += y
    task: Any = "classification"
    if isinstance(estimator, TunedRidge):
        task, target = "regression", y.astype(float)
    elif isinstance(estimator, MultiLabelClassifier):
        task, target = "multilabel", np.eye(3)[y] > 0
    else:
        target = np.array([f"class {value}" for value in y.tolist()])
    report = FitReport(task, "none", 60)
    return embedpipe.Head("head", estimator.fit(X, target), backbone.spec, "label", "", "", 0, report)


def differences(backbone: Backbone, head: embedpipe.Head, items: list[Any], folder: Path) -> float:
    """Return the largest difference of the outputs of a graph from those of a head, for one item and for several."""
    values = [backbone.prepare(item).value for item in items]
    tensors = tensors_of(backbone, values)
    names = tuple(tensors)
    example = tuple(torch.from_numpy(array[:2]) for array in tensors.values())
    write_graph(ExportedNetwork(head, backbone, names), example, names, folder)
    check_graph(folder / "model.onnx")
    model = load_model(str(folder / "model.onnx"), "onnx", 1)
    vectors = backbone.forward(values)
    expected = outputs_of(head, np.hstack([vectors[layer.column] for layer in head.spec.layers]))
    for count in (1, len(items)):
        part = tensors_of(backbone, values[:count])
        given = np.asarray(model(part))
        assert given.shape == (count, expected.shape[1])
    return float(np.abs(given - expected).max())


def photos(count: int) -> list[Any]:
    random = np.random.default_rng(1)
    return [np.kron(random.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((40, 40, 1), np.uint8))] * count


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_photos(name: str, tmp_path: Path) -> None:
    backbone = embedpipe.load_backbone(name, weights="none", device="cpu")
    assert differences(backbone, head_of(backbone, TunedLogisticRegression()), photos(3), tmp_path) < 1e-4


@pytest.mark.long
@pytest.mark.timeout(600)
def test_network_of_texts(tmp_path: Path) -> None:
    backbone = embedpipe.load_backbone("sentence-transformers/all-MiniLM-L6-v2", device="cpu")
    assert differences(backbone, head_of(backbone, TunedLogisticRegression()), TEXTS, tmp_path) < 1e-4


def test_transformer_of_texts_in_int8(tmp_path: Path) -> None:
    backbone = embedpipe.load_backbone(save(tmp_path / "bert", "bert", max_length=12), device="cpu")
    head = head_of(backbone, TunedLogisticRegression())
    assert differences(backbone, head, TEXTS, tmp_path) < 1e-4
    to_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx", "text", [], "all")
    tensors = tensors_of(backbone, [backbone.prepare(text).value for text in TEXTS])
    exact, small = (load_model(str(tmp_path / name), "onnx", 1)(tensors) for name in ("model.onnx", "int8.onnx"))
    assert (exact.argmax(axis=1) == small.argmax(axis=1)).all()
    assert 0 < np.abs(exact - small).max() < 0.1


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "ridge" else pytest.mark.long) for name in HEADS]
)
def test_heads(name: str, tmp_path: Path) -> None:
    backbone = embedpipe.load_backbone(TINY, device="cpu")
    for classes in (2, 3) if name in ("ridge", "logreg", "calibrated") else (3,):
        head = head_of(backbone, HEADS[name], classes)
        require_exportable(head)
        (tmp_path / str(classes)).mkdir()
        assert differences(backbone, head, photos(3), tmp_path / str(classes)) < 1e-4


def test_layers_are_joined_in_the_order_of_the_head(tmp_path: Path) -> None:
    backbone = embedpipe.load_backbone(TINY, layer=["conv2", "features"], device="cpu")
    assert differences(backbone, head_of(backbone, TunedLogisticRegression()), photos(2), tmp_path) < 1e-4


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (RejectingClassifier(TunedLogisticRegression(), by="distance"), "it rejects by the distance"),
        (embedpipe.CrossConformalRegressor(TunedRidge()), "it gives intervals"),
        (TemperatureCalibratedClassifier(FaissKNNClassifier()), "its nearest neighbours are calibrated"),
        (FaissKNNClassifier(recall_target=0.9), "its neighbours are approximate"),
        (RandomForestClassifier(3), "its steps must be linear, or nearest neighbours by cosine"),
    ],
)
def test_heads_that_cannot_leave_say_what_to_do(estimator: Any, reason: str) -> None:
    backbone = embedpipe.load_backbone(TINY, device="cpu")
    dim = backbone.spec.layers[0].dim
    X, y = np.random.default_rng(0).standard_normal((40, dim)), np.arange(40) % 2
    task: Any = "regression" if isinstance(estimator, embedpipe.CrossConformalRegressor) else "classification"
    fitted = estimator.fit(X, y)
    head = embedpipe.Head("head", fitted, backbone.spec, "label", "", "", 0, FitReport(task, "none", 40))
    with pytest.raises(UsageError, match=rf"head 'head' cannot be exported: {reason}.*\. Fit (one|logreg|knn)"):
        require_exportable(head)
