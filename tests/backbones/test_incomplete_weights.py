"""Folders of text models whose weights or tokenizer do not belong to their configuration are refused with the names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_transformer import save

from embedpipe.backbones import load_backbone
from embedpipe.errors import BackboneError, DecodeError, WeightsError

State = dict[str, torch.Tensor]
PROVIDERS = ("transformers", "sentence-transformers")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90868376\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bert"
    save(folder, "bert")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of a small BERT, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "bert"))


def rewrite(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def configure(folder: Path, name: str = "config.json", **values: object) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def load(folder: Path, provider: str = "transformers", **options: object):
    return load_backbone(f"{provider}/{folder}", device="cpu", **options)


def without(part: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if part not in name}


def with_value(name: str, value: float) -> Callable[[State], State]:
    def change(state: State) -> State:
        state[name].view(-1)[0] = value
        return state

    return change


WEIGHTS: dict[str, tuple[Callable[[State], State], str]] = {
    "prefix": (
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        r"(?s)39 missing: embeddings.*39 not in the network: module\.embeddings.*data-parallel",
    ),
    "no layer": (without("layer.1."), r"16 missing: encoder\.layer\.1\.attention"),
    "no tensor": (without("position_embeddings"), r"1 missing: embeddings\.position_embeddings\.weight"),
    "other names": (
        lambda state: {name.replace("LayerNorm", "norm"): tensor for name, tensor in state.items()},
        r"no place for, such as embeddings\.norm",
    ),
    "shape": (
        lambda state: state | {"embeddings.token_type_embeddings.weight": torch.ones(3, 16)},
        r"1 of another shape: embeddings\.token_type_embeddings\.weight \(3, 16\) instead of \(2, 16\)",
    ),
    "adapter": (
        lambda state: state | {"encoder.layer.0.attention.self.query.lora_A.weight": torch.ones(2, 16)},
        r"no place for, such as encoder\.layer\.0\.attention\.self\.query\.lora_A\.weight.*merge adapters",
    ),
    "integers": (
        lambda state: {name: tensor.mul(100).to(torch.int8) for name, tensor in state.items()},
        r"floating-point numbers, but .* holds torch\.int8: save the model before it is quantised",
    ),
    "zeros": (lambda state: {name: torch.zeros_like(t) for name, t in state.items()}, "are all zero"),
    "nan": (with_value("encoder.layer.1.output.dense.weight", np.nan), "1 tensors hold NaN or infinite values"),
    "infinite": (with_value("encoder.layer.1.output.dense.weight", np.inf), r"layer\.1\.output\.dense\.weight"),
}


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_that_are_not_the_networks_are_refused_with_the_tensors(folder, damage, provider):
    change, message = WEIGHTS[damage]
    rewrite(folder, change)
    with pytest.raises(WeightsError, match=message):
        load(folder, provider)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 4}, r"32 missing: encoder\.layer\.2"),
        ({"num_hidden_layers": 1}, r"16 tensors that the network of config\.json has no place for"),
        ({"intermediate_size": 64}, r"of another shape: encoder\.layer\.0\.intermediate\.dense\.bias \(32,\)"),
        ({"model_type": "roberta"}, r"one architecture, got model_type 'roberta' and architectures 'BertModel'"),
    ],
)
def test_configuration_of_another_network_is_refused(folder, values, message):
    configure(folder, **values)
    with pytest.raises(WeightsError, match=message):
        load(folder)


def test_layer_before_the_missing_ones_can_be_embedded(whole, folder):
    rewrite(folder, without("layer.1."))
    layer = ("encoder.layer.0",)
    vectors = [
        backbone.forward([backbone.prepare("the cat").value])["embedding_encoder_layer_0"]
        for backbone in (load(whole, layer=layer), load(folder, layer=layer))
    ]
    np.testing.assert_array_equal(*vectors)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_random_pooler_is_neither_hashed_nor_embedded(whole, folder, provider):
    rewrite(folder, without("pooler"))
    prefix = {"transformers": "", "sentence-transformers": "0.model."}[provider]
    first, again = (load(place, provider) for place in (folder, shutil.copytree(folder, folder.parent / "again")))
    assert first.spec.weights_sha256 == again.spec.weights_sha256 != load(whole, provider).spec.weights_sha256
    with pytest.raises(WeightsError, match=rf"the layer '{prefix}pooler' uses(?s:.*)2 missing: pooler\.dense"):
        load(folder, provider, layer=(f"{prefix}pooler",))
    assert load(whole, provider, layer=(f"{prefix}pooler",)).spec.layers[0].dim == 16


def test_heads_of_a_checkpoint_are_ignored(whole, folder):
    rewrite(folder, lambda state: {**state, "cls.predictions.bias": torch.zeros(12), "classifier.bias": torch.ones(2)})
    rewrite(folder, lambda state: {**state, "embeddings.position_ids": torch.arange(24)[None]})
    assert load(folder).spec.weights_sha256 == load(whole).spec.weights_sha256


def test_empty_weights_of_a_factory_are_refused(monkeypatch):
    import tiny_backbone

    monkeypatch.setattr(tiny_backbone, "empty", lambda: tiny_backbone.make().to("meta"), raising=False)
    with pytest.raises(WeightsError, match=r"'conv1\.weight' is on the meta device"):
        load_backbone("python:tiny_backbone.empty", device="cpu")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_pointers_of_git_lfs_are_refused(folder, file):
    (folder / file).write_text(POINTER)
    with pytest.raises(WeightsError, match=rf"{file}' is a pointer of Git LFS.*git lfs pull"):
        load(folder)


def test_pointers_instead_of_weight_files_are_refused(tmp_path):
    for name in ("model.pth", "model.safetensors"):
        (tmp_path / name).write_text(POINTER)
        with pytest.raises(WeightsError, match="pointer of Git LFS"):
            load_backbone(f"checkpoint/{tmp_path / name}", arch="timm/test_resnet")


def test_adapter_beside_a_model_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    with pytest.raises(WeightsError, match="adapter of another one: merge them"):
        load(folder)


@pytest.mark.parametrize("missing", ["model-00002-of-00002.safetensors", None])
def test_half_of_a_sharded_model_is_refused(folder, missing):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + ('layer.1.' in name)}-of-00002.safetensors" for name in state}
    for file in set(names.values()) - {missing}:
        part = {name: tensor for name, tensor in state.items() if names[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    if missing is None:
        load(folder)
        (folder / "model-00002-of-00002.safetensors").write_bytes(
            (folder / "model-00001-of-00002.safetensors").read_bytes()
        )
    with pytest.raises(WeightsError, match=r"transformers cannot load|16 missing"):
        load(folder)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2"])
def test_model_without_tokenizer_is_refused(tmp_path, kind, provider):
    save(tmp_path / kind, kind)
    for file in tmp_path.glob("*/*token*"):
        file.unlink()
    with pytest.raises(BackboneError, match=r"must have a tokenizer, but has none of .*tokenizer\.json"):
        load(tmp_path / kind, provider)


def replace_words(folder: Path, words: list[str]) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] = {word: i for i, word in enumerate(words)}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in words]
    file.write_text(json.dumps(content))


SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (SPECIAL, "its vocabulary of 4 has special tokens only"),
        ([*SPECIAL, *(f"word{i}" for i in range(20))], "numbers its tokens up to 23 and the network has 12 vectors"),
    ],
)
def test_tokenizer_of_another_model_is_refused(folder, words, message):
    replace_words(folder, words)
    with pytest.raises(WeightsError, match=message):
        load(folder)


def test_small_tokenizer_of_a_large_network_is_refused(folder):
    configure(folder, vocab_size=2000)
    key = "embeddings.word_embeddings.weight"
    rewrite(folder, lambda state: {**state, key: torch.ones(2000, 16)})
    with pytest.raises(WeightsError, match="knows 12 tokens and the network has 2000 vectors"):
        load(folder)


def test_tokenizer_without_its_special_tokens_is_refused(folder):
    replace_words(folder, ["the", "cat", "sits", "outside", "man", "a", ".", "dog", "bird", "fish", "tree", "sky"])
    with pytest.raises(WeightsError, match="must be the network's"):
        load(folder)


def test_first_token_is_a_class_token_only_if_the_tokenizer_adds_one(whole, folder):
    assert load(whole, pooling="cls").spec.layers[0].pooling == "cls"
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError.__mro__[1], match="pooling='cls' needs a class token"):
        load(folder, pooling="cls")


def test_token_that_the_network_has_no_vector_for_fails_its_text(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    token = {"id": 12, "content": "<image>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    content["added_tokens"].append({**token, "normalized": False})
    (folder / "tokenizer.json").write_text(json.dumps(content))
    backbone = load(folder)
    assert backbone.prepare("the cat").value.sizes == (4,)
    with pytest.raises(DecodeError, match="has the token '<image>', for which the network has no vector"):
        backbone.prepare("the <image> cat")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_unknown_tokens_are_counted(whole, provider):
    backbone = load(whole, provider)
    assert dict(backbone.prepare("the cat").counts) == {}
    assert dict(backbone.prepare("the \U0001f600 cat zebra").counts) == {
        "unknown tokens": 2,
        "texts with unknown tokens": 1,
    }
    only = {"unknown tokens": 1, "texts with unknown tokens": 1, "texts without a known token": 1}
    assert dict(backbone.prepare("\u0e2a\u0e27\u0e31\u0e2a").counts) == only


@pytest.mark.parametrize("provider", PROVIDERS)
def test_model_of_one_file_of_pickles_is_compared_as_well(folder, provider):
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    load(folder, provider)
    torch.save({name: tensor.to(torch.uint8) for name, tensor in state.items()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"holds torch\.uint8"):
        load(folder, provider)


def test_pooling_that_is_guessed_is_reported(whole):
    (note,) = load(whole, "sentence-transformers").notes
    assert "no modules.json" in note
    assert load(whole).notes == []


def test_some_layers_of_zeros_are_reported(folder):
    rewrite(folder, lambda state: {name: t * ("layer.1.output" not in name) for name, t in state.items()})
    assert load(folder).notes == ["1 of 13 layers have weights of zeros only, such as encoder.layer.1.output.dense"]


def test_encoder_of_an_encoder_decoder_needs_no_decoder(tmp_path):
    save(tmp_path / "t5", "t5")
    before = load(tmp_path / "t5").spec
    rewrite(tmp_path / "t5", without("decoder."))
    assert load(tmp_path / "t5").spec == before
    rewrite(tmp_path / "t5", without("encoder.final_layer_norm"))
    with pytest.raises(WeightsError, match=r"1 missing: encoder\.final_layer_norm\.weight$"):
        load(tmp_path / "t5")
