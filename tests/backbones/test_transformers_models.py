"""``transformers/``: poolings, layers and limits of encoders of several families, against the library."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tiny_transformer import save

from embedpipe.backbones import describe_layers, load_backbone, options_from_spec
from embedpipe.backbones.providers.hugging_face.tokenizer import FastTokenizer
from embedpipe.errors import BackboneError, DecodeError, UsageError, WeightsError

MINILM = "transformers/sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["the cat sits outside .", "a", "the man the man the man sits", "cat . " * 40]


def embed(backbone, texts, column="embedding"):
    return backbone.forward([backbone.prepare(text).value for text in texts])[column]


def reference(folder, text, limit):
    """Return the hidden states of one text by itself, (layers + 1, tokens, dim)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    batch = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.inference_mode():
        return torch.stack(model(**batch, output_hidden_states=True).hidden_states)[:, 0].numpy()


@pytest.mark.parametrize(
    ("kind", "side", "limit", "layer"),
    [
        ("bert", "right", 24, "encoder.layer.0"),
        ("roberta", "right", 22, "encoder.layer.0"),  # two positions are kept for padding
        ("t5", "right", 512, "block.0"),
        ("gpt2", "left", 24, "h.0"),  # a decoder, whose tokenizer would shift the positions
    ],
)
def test_model_families_pool_batches_as_single_texts(tmp_path, kind, side, limit, layer):
    name = save(tmp_path / kind, kind, side=side)
    mean = load_backbone(name, device="cpu")
    assert mean.spec.preprocessing.max_tokens == limit
    assert mean.spec.layers[0].pooling == "avg"
    states = [reference(tmp_path / kind, text, limit) for text in TEXTS]
    expected = np.stack([state[-1].mean(0) for state in states])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        np.testing.assert_allclose(embed(mean, [TEXTS[i] for i in order]), expected[order], rtol=1e-4, atol=1e-5)
    first = load_backbone(name, pooling="cls", device="cpu")
    np.testing.assert_allclose(embed(first, TEXTS), np.stack([s[-1][0] for s in states]), rtol=1e-4, atol=1e-5)
    if kind != "t5":  # whose blocks give tuples
        inner = load_backbone(name, layer=(layer,), device="cpu")
        column = inner.spec.layers[0].column
        expected = np.stack([state[1].mean(0) for state in states])
        np.testing.assert_allclose(embed(inner, TEXTS, column), expected, rtol=1e-4, atol=1e-5)


def test_minilm_has_the_same_vectors_by_both_providers():
    by_transformers = load_backbone(MINILM, pooling="mean", device="cpu")
    by_library = load_backbone(modality="text", device="cpu")
    assert by_transformers.spec.preprocessing.max_tokens == 512
    texts = ["The cat sits outside.", "Grüße aus Köln 🙂", "x"]
    a, b = embed(by_transformers, texts), embed(by_library, texts)
    assert ((a * b).sum(1) / np.linalg.norm(a, axis=1)).min() >= 0.999999


def test_stages_are_listed_and_left_out():
    stages = describe_layers(MINILM)
    names = [stage.name for stage in stages]
    assert [name for name in names if name.startswith("encoder")] == [f"encoder.layer.{i}" for i in range(6)]
    assert all(stage.dim == 384 for stage in stages if stage.name.startswith("encoder"))
    earlier = load_backbone(MINILM, drop_last=2, device="cpu")
    assert earlier.spec.layers[0].name == stages[-3].tap
    assert earlier.spec.layers[0].dim == 384


def test_random_weights_are_seeded_and_marked_as_random(tmp_path):
    name = save(tmp_path / "bert", "bert")
    backbone = load_backbone(name, weights="none", device="cpu")
    assert not backbone.spec.pretrained
    assert backbone.spec.weights_sha256 != load_backbone(name, device="cpu").spec.weights_sha256


def test_model_without_class_token_or_of_another_type_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"hub repository 'no/such'.*weights='PATH'"):
        load_backbone("transformers/no/such", offline=True)
    name = save(tmp_path / "bert", "bert")
    with pytest.raises(UsageError, match="pooling='sif'"):
        load_backbone(name, pooling="sif")
    with pytest.raises(UsageError, match=r"has no layer 'encoder.layer.9'"):
        load_backbone(name, layer=("encoder.layer.9",))
    (tmp_path / "bert/model.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsError, match="transformers cannot load"):
        load_backbone(name)


def test_code_of_a_folder_is_never_run(tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    name = save(tmp_path / "evil", "bert")
    (tmp_path / "evil/evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    config = json.loads((tmp_path / "evil/config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (tmp_path / "evil/config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail("it asks"))
    for provider in ("transformers", "sentence-transformers"):
        with pytest.raises(WeightsError, match="transformers cannot load"):
            load_backbone(name.replace("transformers", provider, 1))
    assert not ran.exists()


def test_path_in_a_stored_spec_needs_trust(tmp_path):
    spec = load_backbone(save(tmp_path / "bert", "bert"), device="cpu").spec
    for place in ("/etc/model", "../model", "~/model", "local-dir:/tmp/model", "a/../../b"):
        with pytest.raises(BackboneError, match=r"names a path.*weights=\.\.\."):
            options_from_spec(dataclasses.replace(spec, name=place))
        assert options_from_spec(dataclasses.replace(spec, name=place), trust=True).backbone == f"transformers/{place}"


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
def test_settings_are_part_of_the_fingerprint(tmp_path, file):
    name = save(tmp_path / "bert", "bert")
    before = load_backbone(name, device="cpu").spec
    settings = json.loads((tmp_path / "bert" / file).read_text())
    (tmp_path / "bert" / file).write_text(json.dumps({**settings, "transformers_version": "0"}))
    assert load_backbone(name, device="cpu").spec == before
    (tmp_path / "bert" / file).write_text(json.dumps({**settings, "truncation_side": "left", "layer_norm_eps": 0.1}))
    assert load_backbone(name, device="cpu").spec.fingerprint() != before.fingerprint()
    (tmp_path / "bert" / file).write_text("{")
    with pytest.raises(WeightsError):
        load_backbone(name, device="cpu")


def test_text_without_tokens_is_refused():
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    core.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer = FastTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]"), 16)
    assert tokenizer.split("cat", whole=True).sizes == (1,)
    with pytest.raises(DecodeError, match="the text has no tokens"):
        tokenizer.split("\ufffd", whole=True)
