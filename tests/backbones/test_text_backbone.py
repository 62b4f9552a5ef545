"""All backbones of texts: batches, chunks, poolings, layers, and options that do not apply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_text_backbone import LIMIT, TINY_TEXT

from embedpipe.backbones import (
    BackboneOptions,
    BackboneSpec,
    ReloadOptions,
    load_backbone,
    options_from_spec,
    reload_backbone,
)
from embedpipe.errors import BackboneError, DecodeError, MissingExtraError, SpecMismatchError, UsageError, WeightsError

TEXTS = [
    "one",
    "two words",
    "three small words",
    "a b c d e f",
    "more words than the network reads at once",
    "Ä ö 🙂",
]


def tiny(**options):
    return load_backbone(TINY_TEXT, modality="text", device="cpu", **options)


def embed(backbone, texts):
    return backbone.forward([backbone.prepare(text).value for text in texts])["embedding"]


def words(backbone, text):
    """Return the vector of each word (n, dim)."""
    tokens = backbone.network.tokenizer.split(text, whole=True)
    ids = [i for piece in tokens.pieces for i in piece]
    return backbone.network.module.table.weight.numpy()[ids]


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(len(TEXTS))), st.integers(1, len(TEXTS)), st.booleans())
def test_vectors_do_not_depend_on_batch_and_order(order, size, chunk):
    backbone = tiny(chunk=chunk)
    alone = np.concatenate([embed(backbone, [text]) for text in TEXTS])
    parts = [embed(backbone, [TEXTS[i] for i in order[at : at + size]]) for at in range(0, len(order), size)]
    np.testing.assert_allclose(np.concatenate(parts), alone[list(order)], rtol=1e-5, atol=1e-6)


def test_poolings_ignore_padding():
    for pooling, expected in {"avg": np.mean, "mean": np.mean, "max": np.max}.items():
        backbone = tiny(pooling=pooling)
        assert backbone.spec.layers[0].pooling == ("max" if pooling == "max" else "avg")
        vectors = embed(backbone, TEXTS)
        for text, vector in zip(TEXTS, vectors, strict=True):
            np.testing.assert_allclose(vector, expected(words(backbone, text)[:LIMIT], axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "sif", "flatten"])
def test_poolings_that_do_not_apply_are_refused(pooling):
    with pytest.raises(UsageError, match=pooling):
        tiny(pooling=pooling)


def test_chunks_cover_the_whole_text_and_truncation_is_counted():
    long = " ".join(f"word{i}" for i in range(2 * LIMIT + 1))
    cut, whole = tiny(), tiny(chunk=True)
    assert cut.prepare(long).counts == {"truncated texts": 1}
    assert cut.prepare("short").counts == whole.prepare(long).counts == {}
    np.testing.assert_allclose(embed(cut, [long])[0], words(cut, long)[:LIMIT].mean(0), rtol=1e-5, atol=1e-6)
    # Weighted by tokens, the mean of the chunks is that of the words.
    many = embed(whole, ["a", long, "b c", long])
    np.testing.assert_allclose(many[1], words(whole, long).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(many[1], many[3])
    assert cut.spec.fingerprint() != whole.spec.fingerprint()


def test_text_of_a_hundred_chunks_is_their_mean():
    backbone = tiny(chunk=True)
    book = " ".join(f"word{i}" for i in range(LIMIT * 100))
    assert len(backbone.prepare(book).value.pieces) == 100
    np.testing.assert_allclose(embed(backbone, [book])[0], words(backbone, book).mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("payload", ["", "  \n\t", b"", b"\x00\x01\x02", 5, None])
def test_payload_that_is_not_a_text_is_refused(payload):
    with pytest.raises(DecodeError):
        tiny().prepare(payload)


def test_spec_survives_json_and_loads_its_backbone():
    backbone = tiny(chunk=True)
    spec = BackboneSpec.from_json(backbone.spec.to_json())
    assert spec == backbone.spec
    assert spec.modality == "text"
    with pytest.raises(Exception, match="trust"):
        options_from_spec(spec)
    again = reload_backbone(spec, ReloadOptions(trust=True), "cpu", "the store")
    np.testing.assert_array_equal(embed(again, TEXTS), embed(backbone, TEXTS))
    assert "preprocessing.chunk" in tiny().spec.diff(spec)
    with pytest.raises(SpecMismatchError, match="chunk"):
        tiny().spec.require(spec, "differ", "here", "there", "")


def test_batch_without_texts_is_refused():
    with pytest.raises(BackboneError, match="must be at least one text, got none"):
        tiny().forward([])


def test_options_that_do_not_apply_are_refused():
    with pytest.raises(UsageError, match=r"timm/resnet18 embeds images, not texts.*MiniLM"):
        load_backbone("timm/resnet18", modality="text")
    with pytest.raises(UsageError, match=r"embeds texts, not images.*efficientnet"):
        load_backbone("sentence-transformers/all-MiniLM-L6-v2", modality="image")
    with pytest.raises(UsageError, match="chunk applies to texts"):
        load_backbone("timm/resnet18", weights="none", chunk=True)
    with pytest.raises(UsageError, match=r"frequencies.*pooling='sif'"):
        BackboneOptions("word-vectors/x", frequencies="counts.txt")
    with pytest.raises(UsageError, match="frequencies applies to word-vectors/ only"):
        load_backbone(TINY_TEXT, modality="text", pooling="sif", frequencies="counts.txt")
    with pytest.raises(UsageError, match=r"modality must be one of image, text, got 'texts'; did you mean 'text'"):
        BackboneOptions(modality="texts")
    with pytest.raises(UsageError, match="set modality='text', or name"):
        load_backbone(TINY_TEXT)
    with pytest.raises(WeightsError, match=r"the weights file .* does not exist"):
        tiny(weights="nowhere.safetensors")


@pytest.mark.parametrize(
    ("backbone", "module", "extra"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence_transformers", "text"),
        ("transformers/sentence-transformers/all-MiniLM-L6-v2", "transformers", "text"),
        ("open_clip/RN50", "open_clip", "clip"),
    ],
)
def test_error_names_the_missing_extra(backbone, module, extra, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, module, None)  # as if it were not installed
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    # Other weights than any test loads, lest the process's cache has the network.
    with pytest.raises(MissingExtraError, match=rf"pip install 'embedpipe\[{extra}\]'"):
        load_backbone(backbone, weights=str(tmp_path), offline=True, device="cpu")
