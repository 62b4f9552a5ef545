"""The hand-off: it begins where the head is, goes on after a kill to the same weights, and gives a backbone again."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from coloured import colours
from conftest import TINY
from forked import Forks
from safetensors.torch import load_file

import embedpipe
from embedpipe.errors import SpecMismatchError, TrainingDataError, UsageError
from embedpipe.finetuning.linear_probe import fitted_anew
from embedpipe.finetuning.lock import working_alone
from embedpipe.finetuning.split_options import SplitOptions
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.finetuning.training.classifier_network import SOFTENED, ClassifierNetwork
from embedpipe.finetuning.training.linear_head import linear_of
from embedpipe.heads.training_data import read_finite

#: The pictures look alike to the small network.
ALONE = {"near_duplicates": "off"}
FAST = {"epochs": 2, "batch_size": 8, "trust": True, **ALONE}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of sixty pictures of three classes, and a calibrated head on it."""
    root = tmp_path_factory.mktemp("made")
    store = embedpipe.embed(colours(root / "photos"), root / "store", backbone=TINY)
    embedpipe.fit(store, "logreg", calibrate=True, to=root / "head")
    return root / "store", root / "head"


def test_it_begins_with_the_head_and_ends_as_a_backbone_with_one(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    found = embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST)
    assert found.step_zero.stored == found.step_zero.network
    assert found.step_zero.largest < 1e-3
    assert [one.number for one in found.epochs] == [0, 1, 2]
    assert found.epochs[1].images == found.train == 38
    assert found.epochs[0].training_loss is None
    assert found.train + found.validation + found.test.rows == 60
    assert found.test.low <= found.test.difference <= found.test.high
    again = embedpipe.embed(
        store.parent / "photos", tmp_path / "again", backbone=f"checkpoint/{found.backbone}", arch=TINY
    )
    tuned = embedpipe.load_head(found.head)
    said = tuned.predict(again)
    split = read_split_rows(embedpipe.FeatureStore(store), "label", SplitOptions(near_duplicates="off"))
    right = np.array(said["label"].to_pylist()) == np.array(said["actual"].to_pylist())
    assert right[split.test].mean() == found.test.tuned == tuned.report.metrics["accuracy"][0]
    assert tuned.report.protocol == "test split, after fine-tuning"
    assert tuned.predict(store.parent / "photos", weights=found.backbone, trust=True)["label"] == said["label"]


def test_a_finished_run_is_read_and_another_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    first = embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tuned").iterdir()}
    assert sorted(before) == [
        ".lock.part", "backbone.safetensors", "head", "last.safetensors", "result.json", "splits.parquet"]  # fmt: skip
    assert embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST) == first
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tuned").iterdir()}
    with pytest.raises(UsageError, match="of other data or options"):
        embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST | {"epochs": 3})


RUN = """
import sys, embedpipe
from embedpipe.finetuning import training
training.SAVE_SECONDS = 0
store, head, to = sys.argv[1:]
options = dict(epochs=4, batch_size=4, augment="strong", batch_norm="trained", patience=9, trust=True)
options["near_duplicates"] = "off"
embedpipe.finetune(store, head, to=to, **options)
"""


def test_killed_runs_come_to_the_same_weights_bit_for_bit(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    killed, whole, log = tmp_path / "killed", tmp_path / "whole", tmp_path / "forwarded"
    tests = str(Path(__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": tests, "TINY_LOG": str(log), "OMP_NUM_THREADS": "1"}
    chance = random.Random(0)
    with Forks(env) as forks:
        for _ in range(5):
            # 24 pictures are looked at before training goes on, so that every kill strikes in it.
            code = f"import sys\nsys.argv = {['', str(store), str(head), str(killed)]}\n{RUN}"
            forks.kill(code, log, chance.randint(25, 60))
    assert (killed / "state.pt").exists()
    for to in (killed, whole):
        options = {"epochs": 4, "batch_size": 4, "augment": "strong", "batch_norm": "trained", "patience": 9, **ALONE}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = embedpipe.finetune(store, head, to=to, **options, trust=True)
        finally:
            torch.set_num_threads(threads)
        assert len(found.epochs) == 5
    for name in ("backbone.safetensors", "last.safetensors"):
        a, b = load_file(killed / name), load_file(whole / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (killed / "state.pt").exists()


def test_nothing_but_training_rows_moves_the_network(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Another test picture, or none, leaves the weights as they are: test rows are read, not learned."""
    store, head = made
    split = read_split_rows(embedpipe.FeatureStore(store), "label", SplitOptions(near_duplicates="off"))
    first = embedpipe.finetune(store, head, to=tmp_path / "a", **FAST)
    place = store.parent / "photos"
    moved = place / split.ids[int(split.test[0])].as_py()
    kept = moved.read_bytes()
    moved.unlink()
    try:
        second = embedpipe.finetune(store, head, to=tmp_path / "b", **FAST)
    finally:
        moved.write_bytes(kept)
    a, b = load_file(first.backbone), load_file(second.backbone)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert list(second.failed) == [split.ids[int(split.test[0])].as_py()]
    assert second.test.rows == first.test.rows - 1


def test_pictures_that_changed_are_left_out_and_said(made: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "copied"
    shutil.copytree(made[0].parent, root)
    mine = embedpipe.embed(root / "photos", root / "other", backbone=TINY)
    broken = sorted((root / "photos" / "a").iterdir())[:3]
    broken[0].write_bytes(b"no picture")
    broken[1].write_bytes(broken[2].read_bytes())
    found = embedpipe.finetune(mine, to=tmp_path / "tuned", **FAST)
    assert sorted(found.failed) == [f"a/{path.name}" for path in broken[:2]]
    assert all("has changed since it was embedded" in why for why in found.failed.values())


def test_splits_of_an_evaluation_are_those_of_the_training(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    path = tmp_path / "splits.parquet"
    evaluation = embedpipe.evaluate(store, heads=["ridge"], splits=str(path), repeats=1, **ALONE)
    found = embedpipe.finetune(store, head, to=tmp_path / "tuned", splits=str(path), **FAST)
    assert found.splits_id == embedpipe.load_splits(path).identity == evaluation.splits_id
    names = pq.read_table(path).column("seed 0 fold 0").to_pylist()
    assert found.test.rows == names.count("test")


def test_classes_in_the_networks_order_whatever_the_heads(made: tuple[Path, Path]) -> None:
    loaded = embedpipe.load_head(made[1])
    backbone = embedpipe.load_backbone(TINY)
    linear = linear_of(loaded)
    for unit in (False, True):
        network = ClassifierNetwork(backbone, dataclasses.replace(linear, unit=unit)).eval()
        pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
        X = backbone.forward(pixels)["embedding"]
        expected = dataclasses.replace(linear, unit=unit).logits(X)
        with torch.inference_mode():
            np.testing.assert_allclose(network(torch.from_numpy(pixels)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_shared_network_stays_frozen(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    before = embedpipe.load_backbone(TINY).forward(np.zeros((1, 32, 32, 3), np.uint8))["embedding"]
    embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST, learning_rate=0.01)
    after = embedpipe.load_backbone(TINY).forward(np.zeros((1, 32, 32, 3), np.uint8))["embedding"]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs=-1 is no whole number"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"freeze_until": "conv9"}, "freeze_until='conv9' is no part of"),
        ({"accumulate": 9, "batch_size": 8}, "cuts a batch of 8 images"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"label": "species", "head": None}, "species"),
        ({"splits": "splits.json"}, "must end in .parquet"),
        ({"near_duplicates": -1.0}, "near_duplicates must be a cosine"),
    ],
)
def test_bad_options(made: tuple[Path, Path], tmp_path: Path, options: dict[str, object], message: str) -> None:
    store, head = made
    given = {"head": head, **FAST, **options}
    with pytest.raises((UsageError, TrainingDataError), match=message):
        embedpipe.finetune(store, to=tmp_path / "tuned", **given)


def test_what_cannot_be_handed_off(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    knn = embedpipe.fit(store, "knn")
    with pytest.raises(UsageError, match="knn"):
        embedpipe.finetune(store, knn, to=tmp_path / "tuned", **FAST)
    other = embedpipe.embed(store.parent / "photos", tmp_path / "other", backbone="timm/test_vit", weights="none")
    with pytest.raises(SpecMismatchError, match="the head is of another backbone"):
        embedpipe.finetune(other, head, to=tmp_path / "tuned", **FAST)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="holds no run of `finetune`"):
        embedpipe.finetune(store, head, to=tmp_path / "full", **FAST)
    texts = embedpipe.embed([f"text {i}" for i in range(4)], tmp_path / "texts", modality="text",
                            backbone="python:tiny_text_backbone.make")  # fmt: skip
    with pytest.raises(UsageError, match="holds vectors of texts"):
        embedpipe.finetune(texts, to=tmp_path / "tuned", **FAST)


def test_a_damaged_state_says_what_to_do(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "state.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="delete it to start anew"):
        embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet"])
def test_networks_of_timm_and_what_is_frozen(tmp_path: Path, name: str) -> None:
    """Batches in parts, by SGD, of a transformer too; the stages before the one named stay as they are."""
    store = embedpipe.embed(colours(tmp_path / "photos", 36), tmp_path / "store", backbone=name, weights="none")
    head = embedpipe.fit(store, "logreg")
    stage = {"timm/test_vit": "blocks.3", "timm/test_resnet": "layer3"}[name]
    before = embedpipe.load_backbone(name, weights="none").network.module
    options = {"epochs": 1, "batch_size": 12, "accumulate": 3, "freeze_until": stage, "optimizer": "sgd", **ALONE}
    found = embedpipe.finetune(store, head, to=tmp_path / "tuned", **options)
    assert found.step_zero.largest < 1e-3
    last = load_file(tmp_path / "tuned" / "last.safetensors")
    names = [key for key, _ in before.named_parameters()]
    first = next(at for at, key in enumerate(names) if key.startswith(stage))
    state = before.state_dict()
    assert all(torch.equal(last[key], state[key]) for key in names[:first])
    assert any(not torch.equal(last[key], state[key]) for key in names[first:])
    spec = embedpipe.load_head(found.head).spec
    assert (spec.provider, spec.name.split(".")[0]) == ("checkpoint", name)


def test_a_table_with_a_label_column_of_its_own_and_shifted_rows(tmp_path: Path) -> None:
    """The column's name is the table's; rows whose split is `shifted` have no part in training."""
    photos = sorted(colours(tmp_path / "photos", 48).rglob("*.png"))
    rows = [f"{path},{path.parent.name},{'shifted' if i % 4 == 0 else ''}" for i, path in enumerate(photos)]
    (tmp_path / "list.csv").write_text("\n".join(["path,species,split", *rows]))
    found = embedpipe.finetune(tmp_path / "list.csv", to=tmp_path / "tuned", label="species", backbone=TINY, **FAST)
    assert found.train + found.validation + found.test.rows == 36
    split = read_split_rows(
        embedpipe.FeatureStore(tmp_path / "tuned" / "features"), "label", SplitOptions(near_duplicates="off")
    )
    assert len(split.shifted) == 12
    assert not {*split.shifted.tolist()} & {*split.train.tolist(), *split.validation.tolist(), *split.test.tolist()}


def test_the_default_head_knows_no_test_label(made: tuple[Path, Path], tmp_path: Path) -> None:
    """Other labels of the test rows leave the weights as they are."""
    store = embedpipe.FeatureStore(made[0])
    path = tmp_path / "splits.parquet"
    embedpipe.evaluate(store, heads=["ridge"], splits=str(path), repeats=1, **ALONE)
    states = []
    for name in ("as they are", "turned"):
        mine = embedpipe.embed(made[0].parent / "photos", tmp_path / name, backbone=TINY)
        if name == "turned":
            split = read_split_rows(mine, "label", SplitOptions(splits=str(path)))
            ids = split.ids.take(split.test).to_pylist()
            turned = {"a": "b", "b": "c", "c": "a"}
            mine.label(pa.table({"id": ids, "label": [turned[id[0]] for id in ids]}))
            mine = mine.refresh()
        found = embedpipe.finetune(mine, to=tmp_path / f"{name} tuned", splits=str(path), **FAST)
        states.append(load_file(Path(found.folder) / "last.safetensors"))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_old_and_new_are_compared_on_rows_that_the_network_has_not_seen(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    found = embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST)
    photos = made[0].parent / "photos"
    new = embedpipe.embed(photos, tmp_path / "new", backbone=f"checkpoint/{found.backbone}", arch=TINY)
    splits = tmp_path / "tuned" / "splits.parquet"
    both = embedpipe.evaluate([embedpipe.FeatureStore(made[0]), new], heads=["ridge"], splits=str(splits))
    split = read_split_rows(new, "label", SplitOptions(splits=str(splits)))
    assert len(split.test) == found.test.rows
    assert set(both.predictions["id"].to_pylist()) == {split.ids[row].as_py() for row in split.test.tolist()}


def test_two_at_once_in_a_folder(made: tuple[Path, Path], tmp_path: Path) -> None:
    with working_alone(tmp_path), pytest.raises(UsageError, match="another process is at work"):
        embedpipe.finetune(*made, to=tmp_path, **FAST)


@pytest.mark.parametrize("damage", ["result", "backbone.safetensors"])
def test_a_damaged_result_says_what_to_do(made: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    first = embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST)
    result = tmp_path / "tuned" / "result.json"
    if damage == "result":
        result.write_text(result.read_text().replace('"epochs"', '"others"'))
    else:
        (tmp_path / "tuned" / damage).unlink()
    with pytest.raises(UsageError, match="to train anew"):
        embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST)
    result.unlink()
    assert embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST).test == first.test


def test_the_head_is_softened_before_the_first_step(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = embedpipe.FeatureStore(made[0]), embedpipe.load_head(made[1])
    found = embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST | {"epochs": 1, "learning_rate": 1e-9})
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    X = read_finite(store, head.spec.layers, split.ids)
    first, last = fitted_anew(head, X, split, split.train), linear_of(embedpipe.load_head(found.head))
    assert found.best == 1
    np.testing.assert_allclose(last.weight, SOFTENED * first.weight, rtol=1e-3, atol=1e-6)
    assert found.epochs[0].log_loss < found.epochs[1].log_loss  # that of the head as it is, and softened
