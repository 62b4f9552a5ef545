"""`rank`: backbones on a sample that they embed, and feature stores without embedding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from PIL import Image
from stored import clusters, make_store
from tiny_text_backbone import TINY_TEXT

from embedpipe import FeatureStore
from embedpipe._utils.config import cache_folder
from embedpipe.backbones import BackboneOptions
from embedpipe.backbones.imagenet_accuracy import find_imagenet_accuracy
from embedpipe.errors import BackboneError, TrainingDataError, UsageError
from embedpipe.evaluation import RankOptions
from embedpipe.evaluation.ranking import probing
from embedpipe.evaluation.ranking.rank import rank
from embedpipe.evaluation.ranking.result import Ranking
from embedpipe.evaluation.ranking.sampling import draw_sample

FUSSY = "python:tiny_backbone.make_fussy"
#: As a spec names the tiny network.
NAME = "python/tiny_backbone:make"


@pytest.fixture(autouse=True)
def _once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat the cross-validation once, which is quick, except for one test of the default."""
    if request.function is not test_default_is_five_repeats_of_five_folds:
        monkeypatch.setattr(probing, "REPEATS", 1)


def coloured_photos(root: Path, count: int = 60) -> Path:
    """Write noisy pictures of two tints in class folders."""
    rng = np.random.default_rng(0)
    for i in range(count):
        tint = np.array([[90, 60, 60], [60, 60, 90]][i % 2])
        pixels = np.clip(tint + rng.normal(0, 50, (32, 32, 3)) + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
        path = root / ("red", "blue")[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def stores(tmp_path: Path, *spreads: float, rows: int = 60) -> list[FeatureStore]:
    """Make stores of the same items; a larger spread makes worse vectors."""
    made = []
    for number, spread in enumerate(spreads):
        X, y = clusters(rows, spread=spread, seed=number)
        made.append(make_store(tmp_path / f"{number}.features", X, f"spread{spread}", label=y.tolist()))
    return made


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that counts the items that a tiny network embeds."""
    path = tmp_path / "log"
    monkeypatch.setenv("TINY_LOG", str(path))
    return path


def test_stores_are_ranked_by_their_linear_probes(tmp_path: Path) -> None:
    ranking = rank(stores(tmp_path, 2.5, 0.3))
    assert [row.name for row in ranking.rows] == ["timm/spread0.3", "timm/spread2.5"]
    assert ranking.best is ranking.rows[0]
    assert (ranking.task, ranking.metric, ranking.sample, ranking.classes) == ("classification", "accuracy", 60, 3)
    assert ranking.baseline == pytest.approx(1 / 3)
    assert ranking.undecided == ranking.failed == []


def test_difference_from_the_best_is_paired(tmp_path: Path) -> None:
    best, other = rank(stores(tmp_path, 2.5, 0.3)).rows
    assert best.difference is None
    assert other.difference is not None
    assert best.linear_probe is not None
    assert other.linear_probe is not None
    assert other.difference.verdict == "worse"
    assert other.difference.estimate.value == pytest.approx(other.linear_probe.value - best.linear_probe.value)
    assert other.difference.estimate.high < 0


def test_default_is_five_repeats_of_five_folds(tmp_path: Path) -> None:
    (row,) = rank(stores(tmp_path, 0.3)).rows
    assert len(row.values) == 25
    assert row.linear_probe is not None
    assert row.linear_probe.low <= row.linear_probe.value == pytest.approx(np.mean(row.values))


def test_stores_have_transferability_scores_but_no_cost(tmp_path: Path) -> None:
    best, other = rank(stores(tmp_path, 2.5, 0.3)).rows
    assert best.h_score is not None
    assert other.h_score is not None
    assert best.h_score > other.h_score
    assert best.imagenet is None
    assert best.cost is None


def test_equal_backbones_are_undecided(tmp_path: Path) -> None:
    ranking = rank(stores(tmp_path, 1.0, 1.0))
    assert [row.name for row in ranking.undecided] == [ranking.rows[1].name]
    assert len(rank(tmp_path / "0.features").rows) == 1


def test_only_rows_of_all_stores_are_compared(tmp_path: Path) -> None:
    first, second = stores(tmp_path, 0.5, 0.5)
    second.remove([f"row-{i:03d}" for i in range(10)])
    assert rank([first, second.refresh()]).sample == 50
    third = make_store(tmp_path / "third", clusters(60)[0], "c", content_hash=[f"{i:064x}" for i in range(7, 67)])
    with pytest.raises(UsageError, match="60 of 60 items with the same id have another content in"):
        rank([first, third])
    other = FeatureStore.create(tmp_path / "empty", first.spec)
    with pytest.raises(UsageError, match="has none of the ids"):
        rank([first, other])
    with pytest.raises(UsageError, match="backbones must be left out"):
        rank(first, backbones=["timm/resnet18"])
    with pytest.raises(UsageError, match=r"no column 'lable' \(label=\.\.\.\); did you mean 'label'"):
        rank(first, label="lable")


def test_numbers_are_ranked_by_r2(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 6)).astype(np.float32)
    y = (X @ [1.0, 2.0, 0.0, 0.0, 1.0, 0.0] + 0.3 * rng.standard_normal(80)).tolist()
    good = make_store(tmp_path / "good", X, "good", label=y)
    bad = make_store(tmp_path / "bad", rng.standard_normal((80, 6)), "bad", label=y)
    ranking = rank([bad, good])
    assert (ranking.task, ranking.metric, ranking.classes) == ("regression", "r2", 0)
    assert ranking.best.name == "timm/good"
    assert ranking.best.h_score is None
    assert ranking.best.log_me is not None
    assert ranking.rows[1].log_me is not None
    assert ranking.best.log_me > ranking.rows[1].log_me


QUICK: dict[str, Any] = {"sample": 40, "engine": "torch", "device": "cpu"}


def test_backbone_that_cannot_be_loaded_is_a_failed_row(tmp_path: Path, log: Path) -> None:
    photos = coloured_photos(tmp_path / "photos")
    ranking = rank(photos, backbones=[TINY, "timm/no_such_network"], **QUICK)
    assert len(log.read_bytes()) == ranking.sample == 40
    assert [row.name for row in ranking.rows] == [NAME, "timm/no_such_network"]
    assert [row.name for row in ranking.failed] == ["timm/no_such_network"]
    assert "UnknownBackboneError: timm" in ranking.failed[0].failed


def test_cost_is_measured_on_the_sample(tmp_path: Path) -> None:
    cost = rank(coloured_photos(tmp_path / "photos"), backbones=[TINY], **QUICK).best.cost
    assert cost is not None
    assert cost.items == 40
    assert cost.seconds > 0


def test_second_run_embeds_only_new_items(tmp_path: Path, log: Path) -> None:
    photos = coloured_photos(tmp_path / "photos")
    ranking = rank(photos, backbones=[TINY], **QUICK)
    again = rank(photos, backbones=[TINY], **QUICK)
    assert len(log.read_bytes()) == 40
    assert (again.best, again.splits_id) == (ranking.best, ranking.splits_id)
    rank(photos, backbones=[TINY], **{**QUICK, "sample": 60})
    assert len(log.read_bytes()) == 60


def test_lost_cost_is_measured_again(tmp_path: Path, log: Path) -> None:
    photos = coloured_photos(tmp_path / "photos")
    rank(photos, backbones=[TINY], **QUICK)
    next(cache_folder().glob("rank/*/*.json")).unlink()  # as after a run that was killed before it saved the cost
    cost = rank(photos, backbones=[TINY], **QUICK).best.cost
    assert cost is not None
    assert cost.seconds > 0
    assert len(log.read_bytes()) == 80


def test_without_a_cache_or_with_a_damaged_one_the_ranking_is_the_same(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = coloured_photos(tmp_path / "photos")
    first = rank(photos, backbones=[TINY], **QUICK)
    for file in cache_folder().glob("rank/*/*/*.parquet"):
        file.write_bytes(b"damaged")
    next(cache_folder().glob("rank/*/*.json")).write_text("{")
    again = rank(photos, backbones=[TINY], **QUICK)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="nothing is cached"):
        without = rank(photos, backbones=[TINY], **QUICK)
    assert first.best.linear_probe == again.best.linear_probe == without.best.linear_probe
    assert len(log.read_bytes()) == 120


def test_items_in_memory_are_identified_by_content(log: Path) -> None:
    texts = [f"{'good fine' if i % 2 else 'bad poor'} {i} word{i % 7}" for i in range(40)]
    table = pa.table({"body": texts, "label": ["yes" if i % 2 else "no" for i in range(40)]})
    options: dict[str, Any] = {"backbones": [TINY_TEXT], "text": "body", "device": "cpu"}
    ranking = rank(table, **options)
    assert ranking.best.linear_probe is not None
    assert ranking.best.linear_probe.value > 0.9
    count = len(log.read_bytes())
    rank(table, **options)
    assert len(log.read_bytes()) - count < 40 <= count  # only a few texts, to check the loaded network
    shuffled = pa.table({"body": texts[::-1], "label": table["label"]})
    turned = rank(shuffled, **options)
    assert turned.best.linear_probe is not None
    assert turned.best.linear_probe.value > 0.9


def test_items_that_one_backbone_cannot_embed_are_left_out(tmp_path: Path) -> None:
    photos = coloured_photos(tmp_path / "photos", 60)
    (photos / "red" / "000.png").write_bytes(b"no picture")
    ranking = rank(photos, backbones=[TINY, BackboneOptions(TINY, layer=("conv1", "conv2"))], device="cpu")
    assert ranking.sample == 59
    assert ranking.left_out == {"without a vector of every backbone": 1}
    assert sorted(row.layer for row in ranking.rows) == ["conv1", "conv2", "features"]


def test_backbone_with_few_vectors_is_a_failed_row(tmp_path: Path) -> None:
    for i in range(40):
        path = tmp_path / "bright" / str(i % 2) / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 255, np.uint8) - np.uint8(i)).save(path)
    ranking = rank(tmp_path / "bright", backbones=[FUSSY, TINY], device="cpu")
    assert ranking.best.name == NAME
    assert ranking.failed[0].name == f"{NAME}_fussy"
    assert "items of the sample have a vector" in ranking.failed[0].failed
    with pytest.raises(BackboneError, match="all backbones failed"):
        rank(tmp_path / "bright", backbones=[FUSSY], device="cpu")


def test_random_weights_are_named(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for i in range(20):
        write_photo(photos / "ab"[i % 2] / f"{i}.jpg", seed=i)
    ranking = rank(photos, backbones=["timm/test_resnet"], weights="none", random=True, sample=20, device="cpu")
    assert [row.name for row in ranking.rows] == ["timm/test_resnet.r160_in1k (random weights)"]


def test_wrong_arguments_and_labels_are_refused(photos: Path, make_photos: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match="backbones must name at least one"):
        rank(photos)
    with pytest.raises(UsageError, match="backbones must be a list of names"):
        rank(photos, backbones=TINY)
    with pytest.raises(UsageError, match="backbones must be a list of names"):
        rank(photos, backbone=TINY)
    with pytest.raises(UsageError, match="sample must be >= 20, got 3"):
        rank(photos, backbones=[TINY], sample=3)
    with pytest.raises(UsageError, match=r"task must be one of .* got .clasification."):
        rank(photos, backbones=[TINY], task="clasification")
    with pytest.raises(TrainingDataError, match="at least 2 classes of 'label' must have 10 rows"):
        rank(photos, backbones=[TINY])
    flat = make_photos(12, ("",), "flat")
    with pytest.raises(TrainingDataError, match="no row has a 'label'"):
        rank(flat, backbones=[TINY])


def labelled(y: npt.NDArray[Any], split: list[str | None] | None = None) -> pa.Table:
    columns: dict[str, Any] = {"label": y}
    return pa.table(columns if split is None else columns | {"split": split})


def test_sample_is_stratified() -> None:
    y = np.repeat(["a", "b", "c", "d"], [700, 250, 40, 10])
    drawn = draw_sample(labelled(y), "label", RankOptions(sample=100))
    assert (drawn.y == y[drawn.rows]).all()
    names, counts = np.unique(drawn.y, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"a": 59, "b": 21, "c": 10, "d": 10}
    assert (np.diff(drawn.rows) > 0).all()
    assert (draw_sample(labelled(y), "label", RankOptions(sample=100)).rows == drawn.rows).all()
    assert (draw_sample(labelled(y), "label", RankOptions(sample=100, seed=1)).rows != drawn.rows).any()


def test_rare_and_too_many_classes_are_reported() -> None:
    rare = draw_sample(labelled(np.repeat(["a", "b", "c"], [30, 30, 9])), "label", RankOptions())
    assert rare.left_out == {"of classes with fewer than 10 rows": 9}
    many = draw_sample(labelled(np.arange(1000) % 100), "label", RankOptions(sample=200))
    assert len(many.rows) == 200
    assert len(np.unique(many.y)) == 20
    assert "20 of 100 classes" in many.notes[0]


def test_test_split_is_not_sampled() -> None:
    split: list[str | None] = ["Train", "test"] * 30
    drawn = draw_sample(labelled(np.repeat(["a", "b"], 30), split), "label", RankOptions())
    assert (drawn.rows % 2 == 0).all()
    assert sum(drawn.left_out.values()) == 30
    assert len(draw_sample(labelled(np.repeat(["a", "b"], 30), ["test"] * 60), "label", RankOptions()).rows) == 60


def test_imagenet_accuracies_are_those_of_torchvision() -> None:
    known = find_imagenet_accuracy("torchvision/resnet50")
    assert known is not None
    assert known.accuracy == pytest.approx(0.80858)
    assert known.source == "torchvision, ResNet50_Weights.IMAGENET1K_V2"
    same = find_imagenet_accuracy("timm/resnet50.tv_in1k")
    assert same is not None
    assert same.accuracy == pytest.approx(0.7613)
    for unknown in ("timm/tf_efficientnet_lite0", "timm/x", "timm/resnet50.x", "torchvision/x", "python:a.b"):
        assert find_imagenet_accuracy(unknown) is None


def test_ranking_is_plain_data(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    ranking: Ranking = rank(stores(tmp_path, 0.5, 1.5))
    frame = ranking.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["backbone"]) == [row.name for row in ranking.rows]
    assert {"accuracy", "accuracy_low", "difference", "verdict", "h_score", "seconds_per_1000"} <= {*frame.columns}
    assert ranking.to_dict()["rows"][1]["difference"]["verdict"] == frame["verdict"][1]


def test_repr_is_one_line_and_html_is_escaped(tmp_path: Path) -> None:
    ranking = rank(stores(tmp_path, 0.5, 1.5))
    ranking.rows[1].name = "<b>"
    assert repr(ranking).startswith("Ranking(label='label', best='timm/spread0.5', accuracy=")
    assert repr(ranking).endswith("2 backbones, 60 items, 5-fold stratified cross-validation)")
    html = ranking._repr_html_()
    assert ">timm/spread0.5</td>" in html
    assert ">&lt;b&gt;</td>" in html
