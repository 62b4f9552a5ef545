"""Fine-tuning networks that a library knows only by a folder or a hub repository: of timm, open_clip, transformers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from coloured import colours
from safetensors.torch import load_file
from timm.models import save_for_hf
from tiny_clip import config, write_clip
from tiny_vision import save_vision

import embedpipe
from embedpipe import FineTunedClassifier

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 8, "near_duplicates": "off", "device": "cpu"}


def pictures() -> tuple[npt.NDArray[np.uint8], list[str]]:
    rng = np.random.default_rng(0)
    labels = ["dark", "light"] * 12
    images = [rng.integers(0, 100, (40, 40, 3)) + (120 if label == "light" else 0) for label in labels]
    return np.array(images, np.uint8), labels


def save_timm(folder: Path) -> str:
    torch.manual_seed(0)
    save_for_hf(timm.create_model("test_vit2", num_classes=0, img_size=64), folder, safe_serialization=True)
    return f"timm/local-dir:{folder}"


def save_clip(folder: Path) -> str:
    pytest.importorskip("open_clip")
    return f"open_clip/local-dir:{write_clip(folder, config({'layers': 1}, {'layers': 1}))}"


NETWORKS = {
    "timm": save_timm,
    "open_clip": save_clip,
    "transformers": lambda folder: save_vision(folder, "dinov2"),
}


@pytest.mark.parametrize("library", NETWORKS)
def test_classifier_trains_and_survives_a_pickle(library: str, tmp_path: Path) -> None:
    X, y = pictures()
    classifier = FineTunedClassifier(NETWORKS[library](tmp_path / "model"), **FAST).fit(X, y)
    expected = classifier.predict_proba(X)
    assert expected.shape == (24, 2)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(classifier)).predict_proba(X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_fine_tuned_weights_hold_the_configuration(library: str, tmp_path: Path) -> None:
    name, side = NETWORKS[library](tmp_path / "model"), {"timm": 96, "open_clip": 64}[library]
    photos = colours(tmp_path / "photos")
    store = embedpipe.embed(photos, tmp_path / "store", backbone=name, device="cpu", image_size=side)
    embedpipe.fit(store, "logreg", to=tmp_path / "head")
    options = {**FAST, "weights": str(tmp_path / "model")}
    tuned = embedpipe.finetune(store, tmp_path / "head", to=tmp_path / "tuned", **options)
    (tmp_path / "model").rename(tmp_path / "gone")
    backbone = embedpipe.load_backbone(f"checkpoint/{tuned.backbone}", device="cpu")
    assert (backbone.spec.image_size, backbone.spec.preprocessing) == (side, store.spec.preprocessing)
    assert {*load_file(tuned.backbone)} == {*backbone.network.module.state_dict()}
    predicted = embedpipe.load_head(tmp_path / "tuned/head").predict(photos, weights=tuned.backbone, device="cpu")
    assert len(predicted["label"]) == len(store)
