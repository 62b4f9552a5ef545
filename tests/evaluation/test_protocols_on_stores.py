"""Published protocols on stores: every one, with and without a test split, layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stored import clusters, make_store

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.evaluation import PROTOCOLS, ProtocolResult, measure_protocol, run_protocol
from embedpipe.evaluation.protocols.measure import LayerProtocol

SPLIT = ["test" if i % 10 < 3 else "train" for i in range(60)]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_test_split_is_measured_once(tmp_path: Path, name: str) -> None:
    X, y = clusters(60, spread=1.5)
    store = make_store(tmp_path / "store", X, label=y, split=SPLIT)
    (found,) = measure_protocol(store, name, seed=3, progress=False)
    assert (found.store, found.backbone, found.layers) == (store.path, "timm/made_up", ("features",))
    assert found.splits.startswith("test split")
    (result,) = found.results
    train, test = (np.array([role == which for role in SPLIT]) for which in ("train", "test"))
    alone = run_protocol(name, X[train], y[train], X[test], y[test], seed=3)
    assert result.protocol == alone.protocol == f"{name}/{PROTOCOLS[name].version}"
    assert found.figures == result.figures == alone.figures


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_a_split_each_fold_is_measured_once(tmp_path: Path, name: str) -> None:
    X, y = clusters(60, spread=1.5)
    store = make_store(tmp_path / "store", X, label=y)
    (found,) = measure_protocol(store, name, folds=2, repeats=4, progress=False)
    assert found.splits.startswith("2-fold stratified cross-validation")
    assert len(found.results) == 2
    assert found.figures
    for figure, value in found.figures.items():
        assert value == pytest.approx(np.mean([one.figures[figure] for one in found.results]))


def test_clip_lp_chooses_on_the_validation_split(tmp_path: Path) -> None:
    X, y = clusters(60, spread=1.5)
    roles = ["validation" if i % 10 == 5 else role for i, role in enumerate(SPLIT)]
    (found,) = measure_protocol(make_store(tmp_path / "store", X, label=y, split=roles), "clip-lp", progress=False)
    assert found.results[0].settings["held out"] == "validation split"
    assert found.results[0].settings["held-out rows"] == roles.count("validation")


def test_figures_that_only_some_divisions_have_are_left_out() -> None:
    results = [ProtocolResult("few-shot/1", figures, {}, [], 0.0) for figures in ({"a": 1.0, "b": 0.5}, {"a": 0.5})]
    assert LayerProtocol("store", "timm/made_up", ("embedding",), "2-fold", results).figures == {"a": 0.75}
    assert LayerProtocol("store", "timm/made_up", ("embedding",), "2-fold", results[::-1]).figures == {"a": 0.75}


def test_layers_of_several_stores_are_measured_on_the_same_rows(tmp_path: Path) -> None:
    X, y = clusters(60, spread=0.8)
    first = make_store(tmp_path / "first", X, label=y)
    second = make_store(tmp_path / "second", X[:50] + 3 * clusters(50, seed=4)[0][::-1], "other")
    found = measure_protocol([first, second], "dino-knn", folds=2, progress=False)
    assert [one.backbone for one in found] == ["timm/made_up", "timm/other"]
    assert found[0].splits == found[1].splits
    assert found[0].figures["top1"] > found[1].figures["top1"]


def test_what_no_protocol_can_measure_is_refused(tmp_path: Path) -> None:
    X, y = clusters(60)
    store = make_store(tmp_path / "store", X, label=y, number=(y + 0.5).tolist())
    with pytest.raises(
        UsageError, match=r"protocols measure classes, and 'number' holds numbers: name another --label"
    ):
        measure_protocol(store, "clip-lp", label="number", progress=False)
    with pytest.raises(UsageError, match=r"no protocol 'dino_knn'; did you mean 'dino-knn'"):
        measure_protocol(store, "dino_knn", progress=False)
    with pytest.raises(UsageError, match="unknown option"):
        measure_protocol(store, "clip-lp", fold=3, progress=False)
    few = make_store(tmp_path / "few", X[:12], label=y[:12])
    with pytest.raises(TrainingDataError, match="20 neighbours, and there are 8 training rows"):
        measure_protocol(few, "dino-knn", folds=3, progress=False)
