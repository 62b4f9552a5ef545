"""Contrastive fine-tuning of texts: what it writes, that it resumes bit for bit, and what it refuses."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_transformer
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

import embedpipe
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.finetuning.result import FineTuneResult
from embedpipe.finetuning.training import contrastive

WORDS = ["the", "sits", "outside", "a", "."]
FAST: dict[str, Any] = {
    "method": "contrastive",
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 3e-3,
    "near_duplicates": "off",
}


def write_table(path: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation([name, *rng.choice(WORDS, 6)])) for name in names]
    path.write_text("\n".join(["text,label", *(f"{text},{name}" for text, name in zip(texts, names, strict=True))]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small encoder of sentence-transformers."""
    folder = tmp_path_factory.mktemp("model")
    tiny_transformer.save(folder / "bert", "bert")
    encoder = Transformer(str(folder / "bert"))
    pooling = Pooling(encoder.get_embedding_dimension(), "mean")
    SentenceTransformer(modules=[encoder, pooling, Normalize()]).save(str(folder / "st"))
    return folder / "st"


@pytest.fixture(scope="module")
def store(model: Path) -> embedpipe.FeatureStore:
    # enough that every draw of pairs brings the classes together, and not that of one version of torch alone
    table = write_table(model.parent / "sentences.csv", ["cat", "man"] * 40)
    return embedpipe.embed(table, model.parent / "store", backbone=f"sentence-transformers/{model}")


@pytest.fixture(scope="module")
def run(model: Path, store: embedpipe.FeatureStore) -> FineTuneResult:
    return embedpipe.finetune(store, to=model.parent / "tuned", weights=str(model), **FAST)


def test_texts_of_a_class_come_together(model: Path, run: FineTuneResult) -> None:
    assert run.initial_check.largest_logit_difference < 1e-3
    assert [epoch.number for epoch in run.epochs] == [0, 1, 2, 3]
    assert run.best_epoch > 0
    table = embedpipe.embed(model.parent / "sentences.csv", model.parent / "new", backbone=run.backbone_name)
    before = embedpipe.FeatureStore(model.parent / "store")
    gaps = []
    for each in (before, table):
        X, y = each.to_numpy(label="label")
        cosines, same = X @ X.T, y[:, None] == y
        gaps.append(cosines[same].mean() - cosines[~same].mean())
    assert gaps[1] > 1.3 * gaps[0] > 0


def test_result_is_a_backbone_and_a_head_on_its_features(model: Path, run: FineTuneResult) -> None:
    names = {path.name for path in Path(run.folder).iterdir()}
    assert names - {".lock.part"} == {"backbone", "last", "head", "result.json", "splits.parquet"}
    texts = ["a man sits", "the cat outside"]
    head = embedpipe.load_head(run.head)
    assert head.predict(texts, weights=run.backbone)["label"].to_pylist() == ["man", "cat"]
    assert head.report.metrics["accuracy"][0] == run.test.finetuned
    vectors = SentenceTransformer(run.backbone, device="cpu").encode(texts)
    expected = embedpipe.load_backbone(run.backbone_name, device="cpu")
    found = expected.forward([expected.prepare(text).value for text in texts])["embedding"]
    np.testing.assert_allclose(found, vectors, atol=1e-5)


def test_finished_run_is_loaded_and_other_methods_are_refused(
    model: Path, store: embedpipe.FeatureStore, run: FineTuneResult
) -> None:
    options = {"to": run.folder, "weights": str(model)}
    assert embedpipe.finetune(store, **options, **FAST).to_dict() == run.to_dict()
    with pytest.raises(UsageError, match="method contrastive then, lp-ft now"):
        embedpipe.finetune(store, **options, **{**FAST, "method": "lp-ft"})


class Killed(BaseException):
    """Ends a run at once."""


@pytest.mark.long
def test_run_that_ends_after_a_checkpoint_resumes_to_bit_identical_weights(
    model: Path, store: embedpipe.FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's checkpoints hold optimizer, schedule and generators: dropout and order go on where they were."""
    monkeypatch.setattr(contrastive, "SAVE_SECONDS", -1)
    options = {**FAST, "patience": 9, "weights": str(model)}
    whole = embedpipe.finetune(store, to=tmp_path / "whole", **options)
    save_state = contrastive.save_state
    for when in ("before", "after"):

        def save_and_die(*args: Any, when: str = when) -> None:
            if when == "after":
                save_state(*args)
            raise Killed

        monkeypatch.setattr(contrastive, "save_state", save_and_die)
        with pytest.raises(Killed):
            embedpipe.finetune(store, to=tmp_path / "killed", **options)
    with pytest.raises(UsageError, match="a run with method='contrastive' that is not finished, got method='lp-ft'"):
        embedpipe.finetune(store, to=tmp_path / "killed", **{**options, "method": "lp-ft"})
    with pytest.raises(UsageError, match="seed 0 then, 1 now"):
        embedpipe.finetune(store, to=tmp_path / "killed", **{**options, "seed": 1})
    monkeypatch.setattr(contrastive, "save_state", save_state)
    (optimizer,) = (tmp_path / "killed").rglob("optimizer.pt")
    kept = optimizer.read_bytes()
    optimizer.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(UsageError, match=r"the checkpoint .* is damaged, as its files do not have their checksums"):
        embedpipe.finetune(store, to=tmp_path / "killed", **options)
    optimizer.write_bytes(kept)
    again = embedpipe.finetune(store, to=tmp_path / "killed", **options)
    for name in ("backbone", "last"):
        first, second = (load_file(tmp_path / each / name / "model.safetensors") for each in ("whole", "killed"))
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert [epoch.training_loss for epoch in again.epochs] == [epoch.training_loss for epoch in whole.epochs]
    assert again.test == whole.test


@pytest.mark.long
def test_seed_decides_the_weights_and_the_callers_generators_are_kept(
    model: Path, store: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    options = {**FAST, "epochs": 1, "weights": str(model)}
    random.seed(7)
    np.random.seed(7)
    expected = random.Random(7).random(), np.random.RandomState(7).rand()
    runs = [embedpipe.finetune(store, to=tmp_path / f"{i}", **options, seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert (random.random(), np.random.rand()) == expected
    losses = [run.epochs[1].training_loss for run in runs]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 7}, r"batch_size must be even and >= 4 with contrastive training, got 7"),
        ({"lora": 8}, r"lora=8 does not apply to contrastive training"),
        ({"optimizer": "sgd"}, r"optimizer='sgd' does not apply"),
        ({"method": "triplets"}, r"method must be one of lp-ft, contrastive, got 'triplets'"),
        ({"augment": "light"}, r"augment='light' applies to images"),
    ],
)
def test_options_without_meaning_are_refused(
    model: Path, store: embedpipe.FeatureStore, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        embedpipe.finetune(store, to=tmp_path / "tuned", weights=str(model), **{**FAST, **options})
    assert not (tmp_path / "tuned").exists()


def test_other_encoders_are_refused(model: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "sentences.csv", ["cat", "man"] * 20)
    store = embedpipe.embed(table, tmp_path / "store", backbone=f"transformers/{model.parent / 'bert'}")
    with pytest.raises(UsageError, match=r"is for text encoders of sentence-transformers/, and .* is of transformers/"):
        embedpipe.finetune(store, to=tmp_path / "tuned", **FAST)


def test_classes_of_one_text_are_refused(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "sentences.csv"
    rows = ["a cat,cat,train", "the cat,cat,train", "a man,man,train", "cat .,cat,validation", "one cat,cat,test"]
    table.write_text("\n".join(["text,label,split", *rows]))
    store = embedpipe.embed(table, tmp_path / "store", backbone=f"sentence-transformers/{model}")
    with pytest.raises(TrainingDataError, match="needs two classes with two"):
        embedpipe.finetune(store, to=tmp_path / "tuned", weights=str(model), **FAST)


def test_benchmark_and_classifier(model: Path, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    training = {name: value for name, value in FAST.items() if name != "method"}
    learners: Any = ("linear-probe", "contrastive")
    grid: Any = {"seeds": 1, "label_counts": (16,), "learners": learners, "weights": str(model)}
    result = embedpipe.benchmark(store, to=tmp_path / "run", **grid, **training)
    cells = {cell.learner: cell for cell in result.cells}
    assert cells["contrastive"].initial_accuracy == cells["linear-probe"].initial_accuracy
    assert {pair.learner for pair in result.differences} == {"contrastive"}
    assert len(cells["contrastive"].epochs) == 4
    assert not [path for path in (tmp_path / "run" / "cells").iterdir() if path.is_dir()]
    table = store.to_arrow(["text", "label"])
    texts, names = table["text"].to_pylist(), table["label"].to_pylist()
    classifier = embedpipe.FineTunedClassifier(f"sentence-transformers/{model}", **FAST).fit(texts, names)
    shares = classifier.predict_proba(texts)
    assert (classifier.predict(texts) == names).mean() > 0.9
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(texts), shares)


def test_images_are_refused() -> None:
    pictures = [np.full((32, 32, 3), 10 * i, np.uint8) for i in range(20)]
    with pytest.raises(UsageError, match=r"is for text encoders of .*, and the backbone is of timm/"):
        embedpipe.FineTunedClassifier("timm/test_resnet", weights="none", method="contrastive").fit(
            pictures, ["a", "b"] * 10
        )
