"""open_clip: wrong names and weights, and the messages for missing files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import CONFIG, config, known_to_the_library, write_clip

from embedpipe.backbones import load_backbone
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError, WeightsError

pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")


def load(name: str, weights: str = "default", **options: Any) -> Any:
    return load_backbone(name, weights=weights, device="cpu", **options)


@pytest.mark.parametrize(
    ("name", "weights", "error", "message"),
    [
        ("ViT-B-33", "none", UnknownBackboneError, r"no model 'ViT-B-33'; did you mean 'ViT-B-32'\? `embedpipe"),
        ("ViT-B-32:laion", "none", UnknownBackboneError, "no weights tagged 'laion'.*available: openai, "),
        ("ViT-B-32", "default", WeightsError, "needs the tag of its weights.*available: openai, .*weights='none'"),
        ("ViT-S-32", "default", WeightsError, "it has none"),
        ("ViT-H-14", "w.pt", UsageError, "more than one preprocessing: name the tag"),
        ("ViT-B-32", "missing.pt", WeightsError, "the weights file 'missing.pt' does not exist"),
        ("local-dir:nowhere", "default", WeightsError, "'nowhere' must be the folder of an open_clip model"),
    ],
)
def test_wrong_names_and_weights_are_refused(name: str, weights: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load(f"open_clip/{name}", weights)


def test_weights_that_do_not_fit_or_need_code_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "small-clip.json"
    file.write_text(json.dumps(CONFIG))
    with known_to_the_library(file) as known:
        check_refusals(known, tmp_path)


def check_refusals(known: str, tmp_path: Path) -> None:
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "small.safetensors")
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        load(f"open_clip/{known}", str(tmp_path / "small.safetensors"))
    torch.save({"model": print}, tmp_path / "code.pt")
    with pytest.raises(WeightsError, match="run code"):
        load(f"open_clip/{known}", str(tmp_path / "code.pt"))
    other = write_clip(tmp_path / "quick", config(quick_gelu=True))
    with pytest.raises(WeightsError, match=f"must hold '{known}', but holds 'local-dir:"):
        load(f"open_clip/{known}", str(other))
    (other / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no weights: it must have one of open_clip_model\.safetensors"):
        load(f"open_clip/local-dir:{other}")
    (other / "open_clip_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="is not a configuration of open_clip: KeyError: 'model_cfg'"):
        load(f"open_clip/local-dir:{other}")
    padded = write_clip(tmp_path / "padded", recipe={"resize_mode": "longest"})
    with pytest.raises(BackboneError, match="pads with the colour 0"):
        load(f"open_clip/local-dir:{padded}")


@pytest.mark.parametrize(
    ("vision", "text", "message"),
    [
        ({"timm_model_name": "hf-hub:others/net"}, {}, "must be a network of timm itself, got 'hf-hub:others/net'"),
        ({}, {"tokenizer_kwargs": {"bpe_path": "/etc/hosts"}}, "tokenizer_kwargs must not name files, got 'bpe_path'"),
        ({}, {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"vocab_file": "x"}}, "files, got 'vocab_file'"),
    ],
)
def test_places_that_a_configuration_names_are_not_read(
    vision: dict[str, Any], text: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_clip(tmp_path / "clip")
    content = {"model_cfg": config(vision, text), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=f"is not a configuration of open_clip: ValueError: .*{message}"):
        load(f"open_clip/local-dir:{folder}")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ViT-B-32:laion2b_s34b_b79k", "'open_clip_model.safetensors' of .*'laion/CLIP-ViT-B-32-laion2B-s34B-b79K'"),
        ("ViTamin-S:datacomp1b", "'pytorch_model.safetensors' of the hub repository 'jienengchen/ViTamin-S'"),
    ],
)
def test_offline_error_names_the_file_and_the_repository(
    name: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=wanted):
        load(f"open_clip/{name}", offline=True)


def test_network_without_its_tokenizer_embeds_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    file = tmp_path / "remote.json"
    file.write_text(json.dumps(config(text={"hf_tokenizer_name": "some/where"})))
    with known_to_the_library(file) as name:
        backbone = load(f"open_clip/{name}", "none", offline=True)
        assert backbone.forward(np.zeros((1, 32, 32, 3), np.uint8))["embedding"].shape == (1, 16)
        with pytest.raises(WeightsError, match=r"tokenizer.*'some/where'.*'tokenizer.json'"):
            load(f"open_clip/{name}", "none", offline=True, modality="text")
