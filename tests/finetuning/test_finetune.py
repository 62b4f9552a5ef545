"""`finetune`: it starts as the head, resumes after a kill to equal weights, and saves a backbone and a head."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from coloured import colours
from conftest import TINY
from forked import Forks
from safetensors.torch import load_file
from scipy.special import softmax
from sklearn.base import clone
from tiny_vision import save_vision

import embedpipe
from embedpipe.errors import BackboneError, BusyError, SpecMismatchError, TrainingDataError, UsageError
from embedpipe.finetuning.linear_probe import fold_head, refit_probe
from embedpipe.finetuning.options import SplitOptions
from embedpipe.finetuning.result import FineTuneResult
from embedpipe.finetuning.run_folder import lock_folder
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.finetuning.training.classifier_network import SOFTENING, ClassifierNetwork
from embedpipe.finetuning.training.state_file import load_state
from embedpipe.heads.training.vectors import read_finite
from embedpipe.statistics import log_losses

#: The images are near-duplicates for the small network.
ALONE = {"near_duplicates": "off"}
FAST = {"epochs": 2, "batch_size": 8, "trust": True, **ALONE}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store of 60 images of three classes, and a calibrated head on it."""
    root = tmp_path_factory.mktemp("made")
    store = embedpipe.embed(colours(root / "photos"), root / "store", backbone=TINY)
    embedpipe.fit(store, "logreg", calibrate=True, to=root / "head")
    return root / "store", root / "head"


@pytest.fixture(scope="module")
def run(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> FineTuneResult:
    """A finished run of two epochs."""
    return embedpipe.finetune(*made, to=tmp_path_factory.mktemp("run") / "tuned", **FAST)


def test_random_numbers_of_the_caller_are_left_alone(made: tuple[Path, Path], tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    embedpipe.finetune(*made, to=tmp_path / "tuned", **{**FAST, "epochs": 1})
    assert torch.equal(torch.random.get_rng_state(), before)


def test_network_starts_as_the_head(run: FineTuneResult) -> None:
    check = run.initial_check
    assert check.head_accuracy == check.network_accuracy
    assert check.largest_logit_difference < 1e-3
    assert check.rows == run.validation_rows


def test_result_counts_epochs_and_rows(run: FineTuneResult) -> None:
    assert [epoch.number for epoch in run.epochs] == [0, 1, 2]
    assert run.epochs[0].training_loss is None
    assert run.epochs[1].items == run.train_rows == 38
    assert run.train_rows + run.validation_rows + run.test.rows == 60
    assert run.test.low <= run.test.difference <= run.test.high


def test_saved_head_predicts_from_the_saved_backbone(
    made: tuple[Path, Path], run: FineTuneResult, tmp_path: Path
) -> None:
    photos = made[0].parent / "photos"
    store = embedpipe.embed(photos, tmp_path / "again", backbone=f"checkpoint/{run.backbone}", arch=TINY)
    tuned = embedpipe.load_head(run.head)
    predicted = tuned.predict(store)
    split = read_split_rows(embedpipe.FeatureStore(made[0]), "label", SplitOptions(near_duplicates="off"))
    right = np.array(predicted["label"].to_pylist()) == np.array(predicted["actual"].to_pylist())
    assert right[split.test].mean() == run.test.finetuned == tuned.report.metrics["accuracy"][0]
    assert tuned.report.measured_rows == run.test.rows
    assert tuned.predict(photos, weights=run.backbone, trust=True)["label"] == predicted["label"]


def test_result_is_one_line_and_a_table_in_notebooks(run: FineTuneResult) -> None:
    assert repr(run).startswith(f"FineTuneResult({run.folder!r}: epoch {run.best_epoch} of 2, test accuracy ")
    assert "\n" not in repr(run)
    assert "<caption>FineTuneResult</caption>" in run._repr_html_()
    assert run.backbone in run._repr_html_()
    kept = {epoch: dataclasses.replace(run, best_epoch=epoch)._repr_html_() for epoch in (0, 1)}
    assert "the linear probe was kept" in kept[0]
    assert ("difference" in kept[0], "difference" in kept[1]) == (False, True)


def test_result_survives_a_round_trip_through_json(run: FineTuneResult) -> None:
    assert FineTuneResult.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_older_version_of_a_store_is_used_where_it_is_given(made: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(made[0], tmp_path / "store")
    older, newer = (embedpipe.FeatureStore(tmp_path / "store") for _ in range(2))
    newer.remove(newer.ids()[::3])
    for store, rows in ((older, 60), (newer, 40)):
        result = embedpipe.finetune(store, to=tmp_path / str(rows), **{**FAST, "epochs": 0})
        assert result.train_rows + result.validation_rows + result.test.rows == rows


def test_finished_run_is_loaded_and_other_options_are_refused(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, head = made
    first = embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST)

    def times() -> dict[str, int]:  # of a lock, some versions of filelock change it, and some remove the file
        files = (tmp_path / "tuned").iterdir()
        return {path.name: path.stat().st_mtime_ns for path in files if path.name != ".lock.part"}

    before = times()
    assert sorted(before) == ["backbone.safetensors", "head", "last.safetensors", "result.json", "splits.parquet"]
    assert embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST) == first
    # safetensors makes files that only their owner can read
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tuned").rglob("*") if path.is_file()}
    usual = tmp_path / "usual"
    usual.touch()
    assert {*modes.values()} == {usual.stat().st_mode & 0o777}, modes
    assert first.folder == str(tmp_path / "tuned")
    assert before == times()
    moved = (tmp_path / "tuned").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert embedpipe.finetune(store, head, to="moved", **FAST).backbone == str(Path("moved", "backbone.safetensors"))
    moved.rename(tmp_path / "tuned")
    with pytest.raises(UsageError, match=r"finished run in .* was made with other settings \(epochs 2 then, 3 now\)"):
        embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST | {"epochs": 3})


RUN = """
import sys, embedpipe
from embedpipe.finetuning.training import trainer
trainer.SAVE_SECONDS = 0
store, head, to = sys.argv[1:]
options = dict(epochs=4, batch_size=4, augment="strong", batch_norm="trained", patience=9, trust=True)
options["near_duplicates"] = "off"
embedpipe.finetune(store, head, to=to, **options)
"""


@pytest.mark.long
def test_run_killed_five_times_resumes_to_bit_identical_weights(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    killed, whole, log = tmp_path / "killed", tmp_path / "whole", tmp_path / "forwarded"
    env = {**os.environ, "TINY_LOG": str(log), "OMP_NUM_THREADS": "1"}
    chance = random.Random(0)
    with Forks(env) as forks:
        for _ in range(5):
            # 24 images are read before training continues, so every kill hits the training.
            code = f"import sys\nsys.argv = {['', str(store), str(head), str(killed)]}\n{RUN}"
            forks.kill(code, log, chance.randint(25, 60))
    assert (killed / "state.pt").exists()
    for to in (killed, whole):
        options = {"epochs": 4, "batch_size": 4, "augment": "strong", "batch_norm": "trained", "patience": 9, **ALONE}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            result = embedpipe.finetune(store, head, to=to, **options, trust=True)
        finally:
            torch.set_num_threads(threads)
        assert len(result.epochs) == 5
    for name in ("backbone.safetensors", "last.safetensors"):
        a, b = load_file(killed / name), load_file(whole / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not (killed / "state.pt").exists()


def test_weights_do_not_depend_on_test_images(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    split = read_split_rows(embedpipe.FeatureStore(store), "label", SplitOptions(near_duplicates="off"))
    first = embedpipe.finetune(store, head, to=tmp_path / "a", **FAST)
    removed = store.parent / "photos" / split.ids[int(split.test[0])].as_py()
    content = removed.read_bytes()
    removed.unlink()
    try:
        second = embedpipe.finetune(store, head, to=tmp_path / "b", **FAST)
    finally:
        removed.write_bytes(content)
    a, b = load_file(first.backbone), load_file(second.backbone)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert list(second.failed) == [split.ids[int(split.test[0])].as_py()]
    assert second.test.rows == first.test.rows - 1


def test_changed_images_are_left_out_and_reported(made: tuple[Path, Path], tmp_path: Path) -> None:
    root = tmp_path / "copied"
    shutil.copytree(made[0].parent, root)
    store = embedpipe.embed(root / "photos", root / "other", backbone=TINY)
    broken = sorted((root / "photos" / "a").iterdir())[:3]
    broken[0].write_bytes(b"no picture")
    broken[1].write_bytes(broken[2].read_bytes())
    result = embedpipe.finetune(store, to=tmp_path / "tuned", **FAST)
    assert sorted(result.failed) == [f"a/{path.name}" for path in broken[:2]]
    assert all("has changed since it was embedded" in reason for reason in result.failed.values())
    assert result.train_rows + result.validation_rows + result.test.rows == 58
    assert result.train_rows == result.epochs[1].items


def test_splits_of_an_evaluation_are_used(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    path = tmp_path / "splits.parquet"
    evaluation = embedpipe.evaluate(store, heads=["ridge"], splits=str(path), repeats=1, **ALONE)
    result = embedpipe.finetune(store, head, to=tmp_path / "tuned", splits=str(path), **FAST)
    assert result.splits_id == embedpipe.load_splits(path).identity == evaluation.splits_id
    names = pq.read_table(path).column("seed 0 fold 0").to_pylist()
    assert result.test.rows == names.count("test")


def test_network_gives_the_logits_of_the_head(made: tuple[Path, Path]) -> None:
    loaded = embedpipe.load_head(made[1])
    backbone = embedpipe.load_backbone(TINY)
    linear = fold_head(loaded)
    for unit in (False, True):
        network = ClassifierNetwork(backbone, dataclasses.replace(linear, unit=unit)).eval()
        pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
        X = backbone.forward(pixels)["embedding"]
        expected = dataclasses.replace(linear, unit=unit).logits(X)
        with torch.inference_mode():
            np.testing.assert_allclose(network(torch.from_numpy(pixels)).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_shared_network_stays_frozen(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    before = embedpipe.load_backbone(TINY).forward(np.zeros((1, 32, 32, 3), np.uint8))["embedding"]
    embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST, learning_rate=0.01)
    after = embedpipe.load_backbone(TINY).forward(np.zeros((1, 32, 32, 3), np.uint8))["embedding"]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": -1}, "epochs must be an integer >= 0, got -1"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"freeze_until": "conv9"}, "freeze_until must be a stage of .*, got 'conv9'"),
        ({"accumulate": 9, "batch_size": 8}, "accumulate must be at most batch_size=8, got 9"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and below 10, got 0.0"),
        ({"label": "species", "head": None}, "species"),
        ({"splits": "splits.json"}, "must end in .parquet"),
        ({"near_duplicates": -1.0}, "near_duplicates must be a cosine"),
    ],
)
def test_bad_options_are_refused(
    made: tuple[Path, Path], tmp_path: Path, options: dict[str, object], message: str
) -> None:
    store, head = made
    arguments = {"head": head, **FAST, **options}
    with pytest.raises((UsageError, TrainingDataError), match=message):
        embedpipe.finetune(store, to=tmp_path / "tuned", **arguments)


@pytest.mark.parametrize("verb", [embedpipe.finetune, embedpipe.benchmark])
def test_items_in_memory_are_refused(verb: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"source must be a feature store, or the path of images .*, got list: save"):
        verb([np.zeros((8, 8, 3), np.uint8)], to=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_too_little_memory_is_named_and_parts_of_batches_need_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = embedpipe.embed(
        colours(tmp_path / "photos", 24), tmp_path / "store", backbone="python:tiny_backbone.make_hungry"
    )
    options = {**FAST, "epochs": 1, "to": tmp_path / "tuned"}
    with pytest.raises(BackboneError, match=r"cpu has too little memory for 8 images in 1 part: split .*\(accumulate"):
        embedpipe.finetune(store, **options)
    assert embedpipe.finetune(store, **options, accumulate=2).epochs[-1].items == 15
    classifier = embedpipe.FineTunedClassifier("python:tiny_backbone.make_hungry", epochs=1, batch_size=4, **ALONE)
    photos = sorted((tmp_path / "photos").rglob("*.png"))
    monkeypatch.setattr("embedpipe.backbones.engines.engine.PART", 32)  # a whole batch in one pass, as on a GPU
    with pytest.raises(BackboneError, match="cpu has too little memory for 32 images: set a smaller batch_size"):
        clone(classifier).set_params(batch_size=32).fit(photos, [path.parent.name for path in photos])
    assert classifier.fit(photos, [path.parent.name for path in photos]).predict(photos).shape == (24,)


def test_head_that_is_not_linear_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    knn = embedpipe.fit(made[0], "knn")
    with pytest.raises(UsageError, match="head 'knn' cannot become the last layer"):
        embedpipe.finetune(made[0], knn, to=tmp_path / "tuned", **FAST)


def test_head_of_another_backbone_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    photos = made[0].parent / "photos"
    other = embedpipe.embed(photos, tmp_path / "other", backbone="timm/test_vit", weights="none")
    with pytest.raises(SpecMismatchError, match="the head must have the backbone of"):
        embedpipe.finetune(other, made[1], to=tmp_path / "tuned", **FAST)


def test_folder_with_other_files_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(UsageError, match="to must be a new folder, an empty one or one of an earlier `finetune` run"):
        embedpipe.finetune(*made, to=tmp_path, **FAST)


def test_damaged_state_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = made
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "state.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="delete it to start again"):
        embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST)


class Exploit:
    """Runs code when a pickle of it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("exploited"),)


def test_pickle_in_the_state_of_a_run_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": Exploit()}, "state.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Exploit(), 2))
    for name in ("state.pt", "plain.pt"):
        with pytest.raises(UsageError, match="delete it to start again"):
            load_state(Path(name))
    assert not Path("exploited").exists()


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_resnet"])
def test_stages_before_freeze_until_stay_frozen(tmp_path: Path, name: str) -> None:
    """Also trains batches in parts, by SGD, and a transformer."""
    store = embedpipe.embed(colours(tmp_path / "photos", 36), tmp_path / "store", backbone=name, weights="none")
    head = embedpipe.fit(store, "logreg")
    stage = {"timm/test_vit": "blocks.3", "timm/test_resnet": "layer3"}[name]
    before = embedpipe.load_backbone(name, weights="none").network.module
    options = {"epochs": 1, "batch_size": 12, "accumulate": 3, "freeze_until": stage, "optimizer": "sgd", **ALONE}
    result = embedpipe.finetune(store, head, to=tmp_path / "tuned", **options)
    assert result.initial_check.largest_logit_difference < 1e-3
    last = load_file(tmp_path / "tuned" / "last.safetensors")
    names = [key for key, _ in before.named_parameters()]
    first = next(at for at, key in enumerate(names) if key.startswith(stage))
    state = before.state_dict()
    assert all(torch.equal(last[key], state[key]) for key in names[:first])
    assert any(not torch.equal(last[key], state[key]) for key in names[first:])
    spec = embedpipe.load_head(result.head).spec
    assert (spec.provider, spec.name.split(".")[0]) == ("checkpoint", name)


def test_label_column_of_a_table_and_shifted_rows(tmp_path: Path) -> None:
    """The label column may have any name, and rows whose split is `shifted` are not used."""
    photos = sorted(colours(tmp_path / "photos", 48).rglob("*.png"))
    rows = [f"{path},{path.parent.name},{'shifted' if i % 4 == 0 else ''}" for i, path in enumerate(photos)]
    (tmp_path / "list.csv").write_text("\n".join(["path,species,split", *rows]))
    result = embedpipe.finetune(tmp_path / "list.csv", to=tmp_path / "tuned", label="species", backbone=TINY, **FAST)
    assert result.train_rows + result.validation_rows + result.test.rows == 36
    split = read_split_rows(
        embedpipe.FeatureStore(tmp_path / "tuned" / "features"), "label", SplitOptions(near_duplicates="off")
    )
    assert len(split.shifted) == 12
    assert not {*split.shifted.tolist()} & {*split.train.tolist(), *split.validation.tolist(), *split.test.tolist()}


def test_default_head_does_not_see_test_labels(made: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "splits.parquet"
    embedpipe.evaluate(embedpipe.FeatureStore(made[0]), heads=["ridge"], splits=str(path), repeats=1, **ALONE)
    states = []
    for name in ("original", "changed"):
        store = embedpipe.embed(made[0].parent / "photos", tmp_path / name, backbone=TINY)
        if name == "changed":
            split = read_split_rows(store, "label", SplitOptions(splits=str(path)))
            ids = split.ids.take(split.test).to_pylist()
            others = {"a": "b", "b": "c", "c": "a"}
            store.label(pa.table({"id": ids, "label": [others[id[0]] for id in ids]}))
            store = store.refresh()
        result = embedpipe.finetune(store, to=tmp_path / f"{name} tuned", splits=str(path), **FAST)
        states.append(load_file(Path(result.folder) / "last.safetensors"))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_saved_splits_compare_backbones_on_the_test_rows(
    made: tuple[Path, Path], run: FineTuneResult, tmp_path: Path
) -> None:
    photos = made[0].parent / "photos"
    new = embedpipe.embed(photos, tmp_path / "new", backbone=f"checkpoint/{run.backbone}", arch=TINY)
    splits = Path(run.folder) / "splits.parquet"
    both = embedpipe.evaluate([embedpipe.FeatureStore(made[0]), new], heads=["ridge"], splits=str(splits))
    split = read_split_rows(new, "label", SplitOptions(splits=str(splits)))
    assert len(split.test) == run.test.rows
    assert set(both.predictions["id"].to_pylist()) == {split.ids[row].as_py() for row in split.test.tolist()}


@pytest.mark.parametrize("verb", ["finetune", "advise"])
def test_run_that_ended_before_it_had_a_store_goes_on(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = "if os.environ.get('STOPS'):\n        raise KeyboardInterrupt\n    return tiny_backbone.make()"
    Path(f"stopping_{verb}.py").write_text(f"import os\n\nimport tiny_backbone\n\n\ndef make():\n    {made}\n")
    photos, options = colours(tmp_path / "photos"), {"backbone": f"python:stopping_{verb}.make", **FAST, "epochs": 0}
    monkeypatch.setenv("STOPS", "1")
    with pytest.raises(KeyboardInterrupt):
        getattr(embedpipe, verb)(photos, to=tmp_path / "run", **options)
    monkeypatch.delenv("STOPS")
    getattr(embedpipe, verb)(photos, to=tmp_path / "run", **options)
    assert len(embedpipe.FeatureStore(tmp_path / "run" / "features")) == 60


def test_backbone_that_the_call_names_is_loaded_again_without_further_options(tmp_path: Path) -> None:
    photos, options = colours(tmp_path / "photos"), {**FAST, "epochs": 0, "trust": False}
    own = embedpipe.finetune(photos, to=tmp_path / "own", backbone="python:tiny_backbone.make", **options)
    tuned = embedpipe.finetune(photos, to=tmp_path / "vit", backbone="timm/test_vit", weights="none", **options)
    again = embedpipe.finetune(photos, to=tmp_path / "again", backbone=tuned.backbone_name, **options)
    assert again.initial_check.largest_logit_difference < 1e-3
    assert (own.folder, tuned.folder) == (str(tmp_path / "own"), str(tmp_path / "vit"))
    store = embedpipe.FeatureStore(tmp_path / "vit" / "features")
    with pytest.raises(UsageError, match=r"is only for items .* got 'timm/test_vit' with the store"):
        embedpipe.finetune(store, to=tmp_path / "x", backbone="timm/test_vit", **options)


def test_second_process_in_a_folder_is_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(BusyError, match="another process is using"):
        embedpipe.finetune(*made, to=tmp_path, **FAST)


@pytest.mark.parametrize("damage", ["result", "backbone.safetensors", "splits.parquet"])
def test_damaged_result_is_refused_until_it_is_deleted(made: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    first = embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST)
    path = tmp_path / "tuned" / "result.json"
    if damage == "result":
        path.write_text(path.read_text().replace('"epochs": [', '"others": ['))
    else:
        (tmp_path / "tuned" / damage).unlink()
    with pytest.raises(UsageError, match=r"delete .* to train again"):
        embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST)
    path.unlink()
    assert embedpipe.finetune(*made, to=tmp_path / "tuned", **FAST).test == first.test


def test_head_is_softened_before_the_first_step(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, head = embedpipe.FeatureStore(made[0]), embedpipe.load_head(made[1])
    result = embedpipe.finetune(store, head, to=tmp_path / "tuned", **FAST | {"epochs": 1, "learning_rate": 1e-9})
    split = read_split_rows(store, "label", SplitOptions(near_duplicates="off"))
    X, rows = read_finite(store, head.spec.layers, split.ids), split.validation
    softened = SOFTENING * refit_probe(head, X, split, split.train).logits(X[rows])
    before, after = (epoch.validation_log_loss for epoch in result.epochs)
    assert before < after == pytest.approx(log_losses(softmax(softened, axis=1), split.y[rows]).mean(), rel=1e-3)
    assert result.best_epoch == 0  # as accurate, and surer


def test_image_model_of_transformers_is_saved_as_a_folder(tmp_path: Path) -> None:
    """No checkpoint file says how to build it."""
    name = save_vision(tmp_path / "vit", "vit")
    photos = colours(tmp_path / "photos", 36)
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, layer=("features", "layers.0"), pooling="avg")
    options = {"epochs": 1, "batch_size": 12, **ALONE}
    head = embedpipe.fit(store, "logreg", layer="layers.0")
    run = embedpipe.finetune(store, head, to=tmp_path / "tuned", weights=str(tmp_path / "vit"), **options)
    assert run.initial_check.largest_logit_difference < 1e-3
    assert run.backbone_name == f"transformers/{tmp_path / 'tuned' / 'backbone'}"
    last = embedpipe.load_backbone(f"transformers/{tmp_path / 'tuned' / 'last'}", device="cpu")
    assert last.spec.weights_sha256 != store.spec.weights_sha256
    assert last.spec.preprocessing == store.spec.preprocessing
    tuned = embedpipe.load_head(run.head)
    assert tuned.spec.layers == head.spec.layers
    assert len(tuned.predict(photos, weights=run.backbone)) == 36
