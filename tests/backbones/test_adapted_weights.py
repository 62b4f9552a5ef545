"""What a provider chooses or adapts in loading an image network's weights is said, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import write_photo
from safetensors.torch import load_file, save_file
from tiny_clip import CONFIG, write_clip

import embedpipe
from embedpipe.backbones import load_backbone
from embedpipe.errors import WeightsError

State = dict[str, torch.Tensor]


def save(file: Path, state: State) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, file)
    return file


def load(name: str, file: Path):
    return load_backbone(name, weights=str(file), device="cpu")


@pytest.fixture(scope="module")
def vit() -> State:
    torch.manual_seed(0)
    return timm.create_model("test_vit").state_dict()


def test_weights_as_the_network_has_them_need_no_note(tmp_path, vit):
    assert load("timm/test_vit", save(tmp_path / "a.safetensors", vit)).notes == []
    other_classes = {**vit, "head.weight": torch.ones(7, 64), "head.bias": torch.ones(7)}
    assert load("timm/test_vit", save(tmp_path / "b.safetensors", other_classes)).notes == []


def test_interpolated_position_embeddings_of_timm_are_reported(tmp_path):
    larger = timm.create_model("test_vit", img_size=320).state_dict()
    (note,) = load("timm/test_vit", save(tmp_path / "a.safetensors", larger)).notes
    assert note.startswith("pos_embed of the weights has shape (1, 401, 64) and was interpolated to (1, 101, 64)")


@pytest.mark.parametrize(("part", "value"), [("vision_cfg", {"image_size": 64}), ("text_cfg", {"context_length": 20})])
def test_interpolated_position_embeddings_of_open_clip_are_reported(tmp_path, part, value):
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    folder = write_clip(tmp_path)
    assert load_backbone(f"open_clip/local-dir:{folder}", device="cpu").notes == []
    config = {**CONFIG, part: {**CONFIG[part], **value}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    modality = "image" if part == "vision_cfg" else "text"
    (note,) = load_backbone(f"open_clip/local-dir:{folder}", device="cpu", modality=modality).notes
    assert "positional_embedding of the weights has shape" in note


def test_open_clip_folder_without_its_tokenizer_is_refused_for_texts_only(tmp_path):
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    folder = write_clip(tmp_path)
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "some/where"}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    name = f"open_clip/local-dir:{folder}"
    assert load_backbone(name, device="cpu").spec.modality == "image"
    with pytest.raises(WeightsError, match=r"must have a tokenizer, but has none of tokenizer\.json"):
        load_backbone(name, device="cpu", modality="text").prepare("a cat")


def test_prefix_of_the_training_and_the_choice_of_weights_are_reported(tmp_path, vit):
    prefixed = {f"_orig_mod.module.{name}": tensor for name, tensor in vit.items()}
    torch.save({"state_dict": prefixed, "state_dict_ema": prefixed, "epoch": 3}, tmp_path / "a.pth")
    backbone = load("timm/test_vit", tmp_path / "a.pth")
    assert backbone.notes == [
        "of the weights in a.pth (state_dict_ema, state_dict) those of 'state_dict_ema' are used",
        "the prefix '_orig_mod.module.' of the training was removed from the names of the weights",
    ]
    write_photo(tmp_path / "photos/a.jpg", seed=0)
    store = embedpipe.embed(
        tmp_path / "photos", tmp_path / "store", backbone="timm/test_vit", weights=str(tmp_path / "a.pth")
    )
    assert store.summary.notes[:2] == backbone.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {n: t for n, t in s.items() if "layer4.1" not in n}, r"Missing key\(s\).*layer4\.1"),
        (lambda s: {n: t for n, t in s.items() if "running" not in n}, r"Missing key\(s\).*running_mean"),
        (lambda s: {n: t.to(torch.int8) for n, t in s.items()}, r"'conv1\.weight' holds torch\.int8"),
        (lambda s: {n: t * np.nan if "layer3" in n else t for n, t in s.items()}, r"hold NaN .*layer3"),
        (lambda s: {n: torch.zeros_like(t) for n, t in s.items()}, "are all zero"),
    ],
    ids=["layer", "statistics", "integers", "nan", "zeros"],
)
def test_wrong_weights_of_torchvision_are_refused(tmp_path, change, message):
    torch.manual_seed(0)
    state = torchvision.models.resnet18().state_dict()
    with pytest.raises(WeightsError, match=f"(?s){message}"):
        load("torchvision/resnet18", save(tmp_path / "a.safetensors", change(state)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_integers_instead_of_weights_are_refused_by_timm(tmp_path, vit, dtype):
    with pytest.raises(WeightsError, match=rf"holds {dtype}"):
        load("timm/test_vit", save(tmp_path / "a.safetensors", {name: t.to(dtype) for name, t in vit.items()}))


def test_damaged_copy_of_a_clip_is_refused(tmp_path):
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    folder = write_clip(tmp_path)
    file = folder / "open_clip_model.safetensors"
    state = load_file(file)
    for change, message in (
        ({n: t for n, t in state.items() if "resblocks.1." not in n}, r"Missing key\(s\)"),
        ({n: t * np.nan if n == "visual.proj" else t for n, t in state.items()}, r"NaN .*visual\.proj"),
        ({n: (t * 9).to(torch.int8) for n, t in state.items()}, r"holds torch\.int8"),
    ):
        save(file, change)
        with pytest.raises(WeightsError, match=f"(?s){message}"):
            load_backbone(f"open_clip/local-dir:{folder}", device="cpu")


def test_changed_folder_is_read_again_in_the_same_process(tmp_path):
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    folder = write_clip(tmp_path)
    name = f"open_clip/local-dir:{folder}"
    first = load_backbone(name, device="cpu").spec.weights_sha256
    write_clip(folder, seed=1)
    assert load_backbone(name, device="cpu").spec.weights_sha256 != first
