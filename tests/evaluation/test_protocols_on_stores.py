"""Published protocols on stores: every one, with and without a test split, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import clusters, make_store

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.evaluation import PROTOCOLS, ProtocolResult, evaluate, run_protocol
from embedpipe.evaluation.protocols.measure import LayerProtocolResult, ProtocolEvaluation

SPLIT = ["test" if i % 10 < 3 else "train" for i in range(60)]


def measure(store: Any, protocol: str, **options: Any) -> ProtocolEvaluation:
    return evaluate(store, protocol=protocol, progress=False, **options)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_test_split_is_measured_once(tmp_path: Path, name: str) -> None:
    X, y = clusters(60, spread=1.5)
    store = make_store(tmp_path / "store", X, label=y, split=SPLIT)
    evaluation = measure(store, name, seed=3)
    assert evaluation.resampling.startswith("test split")
    (layer,) = evaluation.layers
    assert (layer.store, layer.backbone, layer.layers) == (store.path, "timm/made_up", ("features",))
    (result,) = layer.results
    train, test = (np.array([split == name for split in SPLIT]) for name in ("train", "test"))
    alone = run_protocol(name, X[train], y[train], X[test], y[test], seed=3)
    assert evaluation.protocol == result.protocol == alone.protocol == f"{name}/{PROTOCOLS[name].version}"
    assert layer.metrics == result.metrics == alone.metrics


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_a_split_each_fold_is_measured_once(tmp_path: Path, name: str) -> None:
    X, y = clusters(60, spread=1.5)
    evaluation = measure(make_store(tmp_path / "store", X, label=y), name, folds=2)
    assert evaluation.resampling.startswith("2-fold stratified cross-validation")
    (layer,) = evaluation.layers
    assert len(layer.results) == 2
    assert layer.metrics
    for metric, value in layer.metrics.items():
        assert value == pytest.approx(np.mean([result.metrics[metric] for result in layer.results]))


def test_clip_lp_chooses_on_the_validation_split(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.5)
    split = ["validation" if i % 10 == 5 else name for i, name in enumerate(SPLIT)]
    evaluation = measure(make_store(tmp_path / "store", X, label=y, split=split), "clip-lp")
    settings = evaluation.layers[0].results[0].settings
    assert settings["held out"] == "validation split"
    assert settings["held-out rows"] == split.count("validation")


def test_classes_may_be_in_the_validation_split_only_where_nothing_is_chosen_on_it(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.5)
    split = ["validation" if name == "train" and y[i] == 1 else name for i, name in enumerate(SPLIT)]
    store = make_store(tmp_path / "store", X, label=y, split=split)
    assert measure(store, "mteb-cls").layers[0].metrics
    with pytest.raises(TrainingDataError, match="leave training rows of every class"):
        measure(store, "clip-lp")


def test_metrics_of_some_resamples_only_are_left_out() -> None:
    results = [ProtocolResult("few-shot/1", metrics, {}, [], 0.0) for metrics in ({"a": 1.0, "b": 0.5}, {"a": 0.5})]
    for order in (results, results[::-1]):
        assert LayerProtocolResult("store", "timm/made_up", ("features",), order).metrics == {"a": 0.75}


def test_layers_of_several_stores_are_measured_on_the_same_rows(tmp_path: Path) -> None:
    X, y = clusters(60, spread=0.8)
    first = make_store(tmp_path / "first", X, label=y)
    second = make_store(tmp_path / "second", X[:50] + 3 * clusters(50, seed=4)[0][::-1], "other")
    evaluation = measure([first, second], "dino-knn", folds=2)
    assert [layer.backbone for layer in evaluation.layers] == ["timm/made_up", "timm/other"]
    assert evaluation.rows == 50
    assert evaluation.layers[0].metrics["top1"] > evaluation.layers[1].metrics["top1"]


def test_result_is_plain_data_with_a_short_repr(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.5)
    evaluation = measure(make_store(tmp_path / "<store>", X, label=y, split=SPLIT), "dino-knn")
    assert json.loads(json.dumps(evaluation.to_dict()))["layers"][0]["metrics"] == evaluation.layers[0].metrics
    assert evaluation.records()[0]["top1"] == evaluation.layers[0].metrics["top1"]
    assert repr(evaluation) == "ProtocolEvaluation('dino-knn/1', label='label', 1 layers, 60 rows, test split)"
    assert repr(evaluation.layers[0].results[0]).startswith("ProtocolResult('dino-knn/1', top1=")
    html = evaluation._repr_html_()
    assert "&lt;store&gt;" in html
    assert "<th>top1</th>" in html


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("clip-lp", {"label": "number"}, r"protocols need classes, and column 'number' holds numbers"),
        ("dino_knn", {}, r"unknown protocol 'dino_knn'; did you mean 'dino-knn'\? Available: clip-lp"),
        ("clip-lp", {"fold": 3}, "unknown option"),
        ("clip-lp", {"heads": ["lda"]}, "heads must be left out with protocol='clip-lp'"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, protocol: str, options: dict[str, Any], message: str) -> None:
    X, y = clusters(60)
    store = make_store(tmp_path / "store", X, label=y, number=(y + 0.5).tolist())
    with pytest.raises(UsageError, match=message):
        measure(store, protocol, **options)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    X, y = clusters(12)
    few = make_store(tmp_path / "few", X, label=y)
    with pytest.raises(TrainingDataError, match="at least 20 training rows, got 8"):
        measure(few, "dino-knn", folds=3)
