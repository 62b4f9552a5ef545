"""``sentence-transformers/`` for images: the vectors of ``encode``, one image at a time, and search by words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sklearn.datasets import load_sample_images
from tiny_transformer import save
from tiny_vision import save_vision

import embedpipe
from embedpipe.backbones import load_backbone, load_with_options, options_from_spec, resolve_options
from embedpipe.backbones.options import BackboneOptions
from embedpipe.errors import UsageError, WeightsError

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos"
TEXTS = ["the cat", "a cat sits outside .", "the man", "the cat sits outside the man"]

#: With modules.json as the library writes it today, as it did for CLIP before 2026, with routes, and without the file.
KINDS = ("clip", "legacy-clip", "siglip", "dinov2", "routed", "plain-clip")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small random models of each kind."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("clip", "siglip", "dinov2"):
        save_vision(folder / f"plain-{kind}", kind, words=kind != "dinov2")
        SentenceTransformer(str(folder / f"plain-{kind}"), device="cpu").save_pretrained(str(folder / kind))
    shutil.copytree(folder / "plain-clip", folder / "legacy-clip/0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "legacy-clip/modules.json").write_text(json.dumps([module]))
    texts = Transformer(save(folder / "plain-bert", "bert").removeprefix("transformers/"))
    routes: Any = {
        "text": [texts, Pooling(16)],
        "image": [Transformer(str(folder / "plain-dinov2")), Pooling(32, pooling_mode="cls")],
    }
    router = Router(routes, default_route="text")
    SentenceTransformer(modules=[router], device="cpu").save_pretrained(str(folder / "routed"))
    return folder


@pytest.fixture(scope="module")
def pictures() -> list[npt.NDArray[np.uint8]]:
    photos = [np.array(Image.open(path).convert("RGB")) for path in sorted(PHOTOS.glob("*"))[:6]]
    china, flower = load_sample_images().images
    return [*photos, china, china[:301, :222], flower[:70, :47]]


def cosines(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.cosine_similarity(torch.from_numpy(ours), torch.from_numpy(theirs))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_of_images_are_those_of_encode(kind: str, root: Path, pictures: list[npt.NDArray[np.uint8]]) -> None:
    name = f"sentence-transformers/{root / kind}"
    backbone = load_backbone(name, device="cpu")
    library: Any = SentenceTransformer(str(root / kind), device="cpu")
    expected = np.concatenate([library.encode([Image.fromarray(picture)]) for picture in pictures])
    ours = backbone.forward([backbone.prepare(picture).value for picture in pictures])["embedding"]
    assert cosines(ours, expected).min() >= 0.9999
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert backbone.spec.modality == "image"
    assert backbone.notes == []
    assert load_with_options(options_from_spec(backbone.spec, str(root / kind)), "cpu").spec == backbone.spec


@pytest.mark.parametrize("kind", ["clip", "legacy-clip", "siglip", "routed"])
def test_vectors_of_texts_are_those_of_encode_in_any_batch(kind: str, root: Path) -> None:
    backbone = load_backbone(f"sentence-transformers/{root / kind}", modality="text", device="cpu")
    library: Any = SentenceTransformer(str(root / kind), device="cpu")
    expected = np.concatenate([library.encode([text]) for text in TEXTS])
    for texts, vectors in ((TEXTS, expected), (TEXTS[::-1], expected[::-1])):
        ours = backbone.forward([backbone.prepare(text).value for text in texts])["embedding"]
        np.testing.assert_allclose(ours, vectors, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_words_find_photos_also_of_another_size(kind: str, root: Path, photos: Path, tmp_path: Path) -> None:
    name = f"sentence-transformers/{root / kind}"
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, device="cpu", image_size=64)
    assert store.spec.image_size == 64
    found = embedpipe.search(store, "the cat sits", k=3, weights=str(root / kind)).table
    library: Any = SentenceTransformer(str(root / kind), device="cpu")
    (text,) = library.encode(["the cat sits"])
    images = store.to_numpy()
    best = np.argsort(-(images @ text) / np.linalg.norm(images, axis=1))[:3]
    assert found["id"].to_pylist() == [store.ids()[row] for row in best]


@pytest.mark.long
def test_fine_tuned_classifier_takes_it(root: Path) -> None:
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 80, (24, 40, 40, 3)).astype(np.uint8)
    shades[::2, ..., 0] += 120
    shades[1::2, ..., 1] += 120
    classifier = embedpipe.FineTunedClassifier(
        f"sentence-transformers/{root / 'dinov2'}", epochs=1, near_duplicates="off", device="cpu"
    )
    images, labels = [Image.fromarray(pixels) for pixels in shades], ["red", "green"] * 12
    assert classifier.fit(images, labels).score(images, labels) >= 0.9


def test_transformer_takes_it(root: Path, photos: Path) -> None:
    paths = sorted(photos.rglob("*.jpg"))[:2]
    name = f"sentence-transformers/{root / 'dinov2'}"
    vectors = embedpipe.EmbeddingTransformer(name, device="cpu", store=None).fit_transform(paths)
    library: Any = SentenceTransformer(str(root / "dinov2"), device="cpu")
    theirs = library.encode([Image.open(path) for path in paths])
    assert cosines(vectors, theirs).min() >= 0.9999


def test_files_decide_the_modality(root: Path, tmp_path: Path) -> None:
    def modality(folder: Path) -> str | None:
        return resolve_options(BackboneOptions(backbone=f"sentence-transformers/{folder}")).modality

    assert {kind: modality(root / kind) for kind in KINDS} == dict.fromkeys(KINDS, "image")
    assert modality(root / "plain-bert") == "text"
    shutil.copytree(root / "routed", tmp_path / "asym")
    (tmp_path / "asym/router_config.json").rename(tmp_path / "asym/config.json")
    assert modality(tmp_path / "asym") == "image"
    shutil.copytree(root / "clip", tmp_path / "chats")
    file = tmp_path / "chats/sentence_bert_config.json"
    settings = json.loads(file.read_text())
    settings["modality_config"]["message"] = settings["modality_config"]["text"]
    file.write_text(json.dumps(settings))
    assert modality(tmp_path / "chats") == "text"
    with pytest.raises(UsageError, match="embeds images, not texts"):
        resolve_options(BackboneOptions(backbone=f"sentence-transformers/{root / 'dinov2'}", modality="text"))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "model.safetensors"])
def test_missing_file_is_named(file: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "legacy-clip", tmp_path / "clip")
    missing = tmp_path / "clip/0_CLIPModel" / file
    missing.unlink()
    with pytest.raises(WeightsError, match=rf"{missing}.*does not exist"):
        load_backbone(f"sentence-transformers/{tmp_path / 'clip'}", device="cpu")


def test_module_outside_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "clip", tmp_path / "clip")
    file = tmp_path / "clip/modules.json"
    (module,) = json.loads(file.read_text())
    file.write_text(json.dumps([{**module, "path": "../elsewhere"}]))
    with pytest.raises(WeightsError, match=r"modules.json' must list the modules.*in the folder, got '\.\./elsewhere'"):
        load_backbone(f"sentence-transformers/{tmp_path / 'clip'}", device="cpu")
