"""Search by text: among texts and images; the meaning of a string; one batch for all queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY, write_photo
from PIL import Image
from stored import clusters, make_store
from tiny_clip import write_clip
from word_vector_file import write_vectors

from embedpipe import FeatureStore, SimilarityIndex, embed, search
from embedpipe.backbones import BackboneOptions, load_backbone, load_with_options
from embedpipe.errors import BackboneError, SpecMismatchError, UsageError
from embedpipe.sources.file_types import EmailBytes

MESSAGES = {
    "m1": ("the cat and the dog", "animals"),
    "m2": ("win a cash prize", "money"),
    "m3": ("a loan from the bank", "money"),
    "m4": ("rain and wind", "weather"),
    "m5": ("snow storm", "weather"),
}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    return write_vectors(tmp_path / "topics.txt")


@pytest.fixture
def texts(tmp_path: Path, vectors: Path) -> FeatureStore:
    table = pa.table(
        {
            "id": list(MESSAGES),
            "text": [text for text, _ in MESSAGES.values()],
            "label": [label for _, label in MESSAGES.values()],
        }
    )
    return embed(table, tmp_path / "texts", backbone=f"word-vectors/{vectors}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    return write_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def photo_store(photos: Path, tmp_path: Path, clip: Path) -> FeatureStore:
    return embed(photos, tmp_path / "photo-store", backbone=f"open_clip/local-dir:{clip}")


def by_words(clip: Path, texts: list[str]) -> Any:
    backbone = load_backbone(f"open_clip/local-dir:{clip}", modality="text", device="cpu")
    return backbone.forward([backbone.prepare(text).value for text in texts])["embedding"]


def test_free_text_finds_texts_with_all_their_columns(texts: FeatureStore, vectors: Path) -> None:
    answers = search(texts, "storm clouds: snow", k=2, weights=str(vectors)).to_pylist()
    assert [row["id"] for row in answers] == ["m5", "m4"]
    assert {(row["query"], row["query_uri"], row["error"]) for row in answers} == {("storm clouds: snow", None, None)}
    assert [(row["label"], row["text"]) for row in answers] == [("weather", "snow storm"), ("weather", "rain and wind")]


def test_string_is_an_id_then_a_path_then_a_text(
    texts: FeatureStore, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"k": 1, "weights": str(vectors)}
    assert search(texts, "m2", **options).table["id"].to_pylist() == ["m3"]
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "one.txt").write_text("a bank")
    (tmp_path / "cat" / "two.txt").write_text("some snow")
    assert search(texts, "cat", **options).table["query"].to_pylist() == ["cat"]  # a word, whatever lies here
    answers = search(texts, "cat/", **options)
    assert answers.table["query"].to_pylist() == ["one.txt", "two.txt"]
    assert answers.table["label"].to_pylist() == ["money", "weather"]
    single = search(texts, tmp_path / "cat" / "two.txt", **options).to_pylist()
    assert [(row["query"], row["query_uri"]) for row in single] == [("two.txt", str(tmp_path / "cat" / "two.txt"))]
    assert search(texts, "dog", **options).table["id"].to_pylist() == ["m1"]


def test_files_of_texts_and_vectors_are_queries(
    texts: FeatureStore, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"k": 1, "weights": str(vectors)}
    pa.csv.write_csv(pa.table({"id": ["q"], "text": ["a coin"]}), tmp_path / "asked.csv")
    assert search(texts, "asked.csv", **options).table["query"].to_pylist() == ["q"]
    np.save(tmp_path / "asked.npy", texts.to_numpy()[:1])
    assert search(texts, "asked.npy", **options).table["id"].to_pylist() == ["m1"]
    assert search(texts, "missing.npy cat", **options).table["id"].to_pylist() == ["m1"]
    with pytest.raises(UsageError, match=r"has no id .*there is no file or folder"):
        search(texts, Path("missing.txt"), **options)
    long = "a dog " * 2000
    assert search(texts, long, **options).table["query"].to_pylist() == [long]


def test_many_queries_keep_their_order_and_failures_their_rows(texts: FeatureStore, vectors: Path) -> None:
    asked = ["rain", "m1", " ", b"a loan", np.asarray(texts.to_numpy()[1]), EmailBytes(b"Subject: prize\n\nwin"), "\0x"]
    answers = search(texts, asked, k=1, weights=str(vectors)).to_pylist()
    assert [row["query"] for row in answers] == ["rain", "m1", " ", "00000000", "vector 0", "00000001", "\0x"]
    assert [answers[i]["id"] for i in (0, 3, 4, 5)] == ["m4", "m3", "m2", "m2"]
    assert answers[2]["error"].startswith("DecodeError")
    assert [row["error"] is None for row in answers] == [True, True, False, True, True, True, False]


def test_same_text_may_be_a_query_twice(texts: FeatureStore, vectors: Path) -> None:
    answers = search(texts, ["snow", "snow"], k=2, weights=str(vectors)).to_pylist()
    assert [(row["query"], row["rank"]) for row in answers] == [("snow", 1), ("snow", 2)] * 2


def test_image_query_needs_a_backbone_with_an_image_tower(texts: FeatureStore, vectors: Path, photos: Path) -> None:
    path = photos / "cat/0000.jpg"
    for query in (str(path), path, Image.new("RGB", (4, 4)), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(UsageError, match="texts embedded by word-vectors/topics cannot be searched by photos"):
            search(texts, query, weights=str(vectors))


def test_images_are_found_by_text(photo_store: FeatureStore, clip: Path) -> None:
    words = ["a photo of a cat", "an owl at night"]
    answers = search(photo_store, words, k=12, weights=str(clip)).to_pylist()
    X = photo_store.to_numpy().astype(np.float64)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    for query, vector in zip(words, by_words(clip, words).astype(np.float64), strict=True):
        mine = [row for row in answers if row["query"] == query]
        cosines = X @ vector / np.linalg.norm(vector)
        assert {row["id"]: row["score"] for row in mine} == pytest.approx(
            dict(zip(photo_store.ids(), cosines, strict=True)), abs=1e-5
        )
        assert {row["query_uri"] for row in mine} == {None}


def test_texts_images_ids_and_vectors_in_one_list(photo_store: FeatureStore, clip: Path, photos: Path) -> None:
    index = SimilarityIndex.load(photo_store)
    image = Image.open(photos / "dog/0004.jpg")
    asked = ["a dog", str(photos / "owl/0002.jpg"), image, "cat/0000.jpg", "an owl", photo_store.to_numpy()[3]]
    answers = search(index, asked, k=1, weights=str(clip)).to_pylist()
    assert [row["query"] for row in answers] == ["a dog", "0002.jpg", "00000000", "cat/0000.jpg", "an owl", "vector 0"]
    assert answers[2]["id"] == "dog/0004.jpg"
    alone = [search(index, item, k=1, weights=str(clip)).to_pylist()[0] for item in asked]
    assert [row["id"] for row in alone] == [row["id"] for row in answers]
    assert [row["score"] for row in alone] == pytest.approx([row["score"] for row in answers], abs=1e-5)


def test_image_with_words_is_the_sum_of_both(photo_store: FeatureStore, clip: Path, photos: Path) -> None:
    answers = search(photo_store, photos / "owl/0002.jpg", like="at night", k=12, weights=str(clip)).to_pylist()
    X = photo_store.to_numpy().astype(np.float64)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    (words,) = by_words(clip, ["at night"]).astype(np.float64)
    itself = photo_store.ids().index("owl/0002.jpg")
    asked = X[itself] + words / np.linalg.norm(words)
    cosines = X @ asked / np.linalg.norm(asked)
    assert {row["query"] for row in answers} == {"0002.jpg, like at night"}
    assert {row["query_uri"] for row in answers} == {str(photos / "owl/0002.jpg")}
    expected = {id: cosine for id, cosine in zip(photo_store.ids(), cosines, strict=True) if id != "owl/0002.jpg"}
    assert {row["id"]: row["score"] for row in answers} == pytest.approx(expected, abs=1e-5)


def test_queries_of_one_list_share_a_batch(photo_store: FeatureStore, clip: Path, tmp_path: Path) -> None:
    paths = [write_photo(tmp_path / f"new/{i}.jpg", seed=i + 50) for i in range(3)]
    asked = [paths[0], "a cat", paths[1], Image.open(paths[2]), "a dog", paths[2], "an owl"]
    options: dict[str, Any] = {"k": 1, "weights": str(clip), "device": "cpu"}
    search(photo_store, asked, **options)  # loads, and runs the trial batches
    again = BackboneOptions(f"open_clip/{photo_store.spec.name}", weights=str(clip))
    module = load_with_options(again, "cpu").network.module
    sizes: dict[str, list[int]] = {"visual": [], "token_embedding": []}
    handles = [
        module.get_submodule(name).register_forward_pre_hook(lambda m, inputs, seen=seen: seen.append(len(inputs[0])))
        for name, seen in sizes.items()
    ]
    try:
        search(photo_store, asked, **options)
    finally:
        for handle in handles:
            handle.remove()
    assert sizes == {"visual": [4], "token_embedding": [3]}


def test_string_that_looks_like_a_file_is_not_a_text(photo_store: FeatureStore, clip: Path) -> None:
    for query in ("new/photo", "missing.jpg", "a photo.jpg", "rows.csv", "shards-*.tar"):
        with pytest.raises(UsageError, match=r"has no id .*, and "):
            search(photo_store, query, weights=str(clip))
    with pytest.raises(UsageError, match="cannot read vectors"):
        search(photo_store, "missing.npy", weights=str(clip))
    assert search(photo_store, "cats and/or dogs", k=1, weights=str(clip)).table.num_rows == 1


def test_text_query_needs_a_backbone_with_a_text_tower(photos: Path, tmp_path: Path) -> None:
    made_up = make_store(tmp_path / "made-up", clusters(12)[0])
    with pytest.raises(UsageError) as caught:
        search(made_up, "row-0x4")
    message = str(caught.value)
    assert "has no id 'row-0x4'" in message
    assert "no file or folder 'row-0x4'; did you mean 'row-004'?" in message
    assert "photos embedded by timm/made_up cannot be searched by words: embed them with open_clip/" in message
    store = embed(photos, tmp_path / "s", backbone=TINY)
    with pytest.raises(BackboneError, match=r"has no id 'a sad cat'[\s\S]*names Python code to run"):
        search(store, "a sad cat")
    with pytest.raises(UsageError, match=r"has no id 'a sad cat', .* folder 'a sad cat'\n.*has no encoder for texts"):
        search(store, "a sad cat", trust=True)
    with pytest.raises(UsageError, match=r"has no id .*there is no file or folder 'x/y\.jpg'[^\n]*$"):
        search(store, "x/y.jpg", trust=True)


def test_texts_are_found_by_images_of_the_same_space(tmp_path: Path, clip: Path, photos: Path) -> None:
    name = f"open_clip/local-dir:{clip}"
    texts = [text for text, _ in MESSAGES.values()]
    store = embed(texts, tmp_path / "texts", backbone=name, modality="text")
    photo = photos / "cat/0000.jpg"
    answers = search(store, photo, k=5, weights=str(clip)).to_pylist()
    backbone = load_backbone(name, device="cpu")
    vector = backbone.forward([backbone.prepare(photo.read_bytes()).value])["embedding"][0]
    vectors = by_words(clip, texts)
    cosines = vectors @ vector / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vector)
    assert [row["query"] for row in answers] == ["0000.jpg"] * 5
    assert [int(row["id"]) for row in answers] == np.argsort(-cosines).tolist()


def test_other_tower_must_have_the_same_weights(photo_store: FeatureStore, tmp_path: Path) -> None:
    other = write_clip(tmp_path / "other", seed=5)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        search(photo_store, "a cat", weights=str(other))


def test_only_the_features_of_two_towers_share_a_space(photos: Path, tmp_path: Path, clip: Path) -> None:
    layer = "visual.ln_post"
    store = embed(photos, tmp_path / "s", backbone=f"open_clip/local-dir:{clip}", layer=("features", layer))
    assert search(store, "a cat", layer="features", k=1, weights=str(clip)).table.num_rows == 1
    with pytest.raises(UsageError, match=f"by words with layer {layer}: only 'features' share a space"):
        search(store, "a cat", layer=layer, k=1, weights=str(clip))
