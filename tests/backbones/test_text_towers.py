"""The text encoders of CLIP and SigLIP of transformers, against ``get_text_features``, and search by words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tiny_vision import save_vision

import embedpipe
from embedpipe.backbones import load_backbone, load_with_options, options_from_spec
from embedpipe.errors import UsageError

TEXTS = ["the cat", "a cat sits outside .", "the man", "the cat sits outside the man . a man sits outside the cat"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("towers")
    for kind in ("clip", "siglip"):
        save_vision(folder / kind, kind, words=True)
    return folder


def vectors_of(backbone: Any, texts: list[str]) -> torch.Tensor:
    return torch.from_numpy(backbone.forward([backbone.prepare(text).value for text in texts])["embedding"])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_texts_have_the_librarys_vectors_one_at_a_time(kind: str, root: Path) -> None:
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(root / kind)
    model: Any = transformers.AutoModel.from_pretrained(root / kind).eval()
    options: dict[str, Any] = {"truncation": True, "max_length": 8, "return_tensors": "pt"}
    options["padding"] = "max_length" if kind == "siglip" else False
    expected = []
    for text in TEXTS:
        batch = tokenizer(text, **options)
        taken = ("input_ids",) if kind == "siglip" else ("input_ids", "attention_mask")
        with torch.inference_mode():
            expected.append(model.get_text_features(**{name: batch[name] for name in taken}).pooler_output)
    backbone = load_backbone(f"transformers/{root / kind}", modality="text", device="cpu")
    ours = vectors_of(backbone, TEXTS)
    torch.testing.assert_close(ours, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert torch.cosine_similarity(ours, torch.cat(expected)).min() >= 0.9999
    torch.testing.assert_close(vectors_of(backbone, TEXTS[::-1]).flip(0), ours, rtol=1e-4, atol=1e-5)
    assert [backbone.prepare(text).counts.get("truncated texts", 0) for text in TEXTS] == [0, 0, 0, 1]
    assert load_with_options(options_from_spec(backbone.spec, str(root / kind)), "cpu").spec == backbone.spec


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_words_find_photos_also_of_another_size(kind: str, root: Path, photos: Path, tmp_path: Path) -> None:
    name = f"transformers/{root / kind}"
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, device="cpu", image_size=64)
    found = embedpipe.search(store, "the cat sits", k=3, weights=str(root / kind)).table
    images = store.to_numpy().astype(np.float64)
    (text,) = vectors_of(load_backbone(name, modality="text", device="cpu"), ["the cat sits"]).numpy()
    cosines = images @ text / np.linalg.norm(images, axis=1) / np.linalg.norm(text)
    best = [store.ids()[row] for row in np.argsort(-cosines)[:3]]
    assert found["id"].to_pylist() == best


def test_model_without_its_tokenizer_embeds_images_only(photos: Path, tmp_path: Path) -> None:
    name = save_vision(tmp_path / "clip", "clip")
    with pytest.raises(UsageError, match="embeds images, not texts"):
        load_backbone(name, modality="text", device="cpu")
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, device="cpu")
    with pytest.raises(UsageError, match=r"cannot be searched by words.*CLIP or SigLIP.*and its tokenizer"):
        embedpipe.search(store, "the cat", weights=str(tmp_path / "clip"))
