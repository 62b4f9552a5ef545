"""``image_size`` and ``pooling``, for networks of each library, against the library's own calls."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from tiny_clip import config, write_clip
from tiny_vision import save_vision
from torchvision import models

import embedpipe
from embedpipe.backbones import load_backbone, load_with_options, options_from_spec
from embedpipe.backbones.layers import dry_run
from embedpipe.backbones.layers.capture import plan_layers
from embedpipe.backbones.layers.embedder import normalise
from embedpipe.errors import EmbedpipeError, UsageError

Vectors = npt.NDArray[np.float32]


def load(name: str, **options: Any) -> Any:
    return load_backbone(name, device="cpu", **options)


@pytest.fixture(scope="module")
def pictures() -> list[npt.NDArray[np.uint8]]:
    china, flower = load_sample_images().images
    return [china, flower, china[:301, :222], flower[:70, :47]]


def check(backbone: Any, pictures: list[Any], pixels: torch.Tensor | None, expected: torch.Tensor) -> None:
    """Pixels are the library's, vectors its vectors, and the spec loads the same again."""
    items = np.stack([backbone.prepare(picture).value for picture in pictures])
    if pixels is not None:
        ours = normalise(torch.from_numpy(items), backbone.spec.preprocessing)
        assert (ours - pixels).abs().mean() < 1e-3
    vectors = torch.from_numpy(backbone.forward(items)["embedding"])
    assert torch.cosine_similarity(vectors, expected).min() >= 0.9999
    torch.testing.assert_close(vectors, expected, rtol=5e-3, atol=5e-3)


def perturbed(module: Any) -> Any:
    """Return a module whose random weights are far from all alike."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("test_vit", 96),
        ("test_resnet", 96),
        pytest.param("vit_small_patch16_dinov3", 64, marks=pytest.mark.long),
        pytest.param("swin_tiny_patch4_window7_224", 128, marks=pytest.mark.long),
    ],
)
def test_timm_networks_see_images_of_another_size(name: str, side: int, pictures: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(perturbed(timm.create_model(name)).state_dict(), file)
    sized = {} if "resnet" in name else {"img_size": side}
    model: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)}, **sized).eval()
    recipe = timm.data.resolve_model_data_config(model, args={"img_size": side})
    transform = timm.data.create_transform(**recipe, is_training=False)
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
    with torch.inference_mode():
        tokens = torch.cat([model.forward_features(image[None]) for image in pixels])
        head = model.forward_head(tokens, pre_logits=True)

    backbone = load(f"timm/{name}", weights=str(file), image_size=side, pooling="none")
    check(backbone, pictures, pixels, head)
    assert (backbone.spec.image_size, backbone.spec.preprocessing.crop) == (side, (side, side))
    native = load(f"timm/{name}", weights=str(file), pooling="none")
    assert native.spec.weights_sha256 == backbone.spec.weights_sha256
    assert native.spec.image_size is None
    again = load_with_options(options_from_spec(backbone.spec, str(file)), "cpu")
    assert again.spec == backbone.spec
    if name == "vit_small_patch16_dinov3":
        check(load(f"timm/{name}", weights=str(file), image_size=side), pictures, pixels, tokens[:, 0])
        mean = load(f"timm/{name}", weights=str(file), image_size=side, pooling="mean")
        check(mean, pictures, pixels, tokens[:, 5:].mean(1))
        torch.testing.assert_close(head, tokens[:, 5:].mean(1))


@pytest.mark.long
def test_torchvision_networks_see_images_of_another_size(pictures: list[Any], tmp_path: Path) -> None:
    module = perturbed(models.vit_b_32())
    file = tmp_path / "weights.pth"
    torch.save(module.state_dict(), file)
    state = models.vision_transformer.interpolate_embeddings(64, 32, module.state_dict())
    larger = models.vit_b_32(image_size=64).eval()
    larger.load_state_dict(state)
    backbone = load("torchvision/vit_b_32", weights=str(file), image_size=64)
    assert backbone.spec.preprocessing.resize == (73,)  # 256 * 64 / 224
    items = torch.from_numpy(np.stack([backbone.prepare(picture).value for picture in pictures]))
    pixels = normalise(items, backbone.spec.preprocessing)
    seen: list[torch.Tensor] = []
    larger.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.inference_mode():
        larger(pixels)
    (tokens,) = seen
    check(backbone, pictures, pixels, tokens[:, 0])
    both = load("torchvision/vit_b_32", weights=str(file), image_size=64, pooling="cls+mean")
    check(both, pictures, pixels, torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))
    with pytest.raises(UsageError, match="multiple of 32, the side of a patch, got 100: use 96 or 128"):
        load("torchvision/vit_b_32", weights="none", image_size=100)


@pytest.mark.parametrize("norm_comes_later", [False, True])
def test_open_clip_networks_see_images_of_another_size(
    norm_comes_later: bool, pictures: list[Any], tmp_path: Path
) -> None:
    open_clip: Any = pytest.importorskip("open_clip")
    folder = write_clip(tmp_path / "clip", config({"final_ln_after_pool": norm_comes_later}))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", force_image_size=64)
    pixels = torch.stack([transform(Image.fromarray(picture)) for picture in pictures])
    with torch.inference_mode():
        expected = model.eval().encode_image(pixels)
        outputs = model.visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=not norm_comes_later, output_fmt="NLC", output_extra_tokens=True
        )
    name = f"open_clip/local-dir:{folder}"
    check(load(name, image_size=64), pictures, pixels, expected)
    finish = model.visual.ln_post if norm_comes_later else torch.nn.Identity()
    mean, first = outputs["image_intermediates"][-1].mean(1), outputs["image_intermediates_prefix"][-1][:, 0]
    with torch.inference_mode():
        check(load(name, image_size=64, pooling="mean"), pictures, pixels, finish(mean))
        check(load(name, image_size=64, pooling="cls"), pictures, pixels, finish(first))
    assert load(name).spec.weights_sha256 == load(name, image_size=64).spec.weights_sha256


@pytest.mark.parametrize(
    "kind",
    [
        *("dinov2", "vit-mae", "ijepa", "swin", "siglip", "clip"),
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("registers", "vit", "convnextv2")),
    ],
)
def test_transformers_see_images_of_another_size(kind: str, pictures: list[Any], tmp_path: Path) -> None:
    name, side = save_vision(tmp_path / kind, kind), 64
    processor: Any = transformers.AutoImageProcessor.from_pretrained(tmp_path / kind)
    given: dict[str, Any] = {"size": {"height": side, "width": side}}
    if kind in ("dinov2", "registers", "clip"):
        given = {"size": {"shortest_edge": 37 * 2}, "crop_size": {"height": side, "width": side}}
    elif kind == "convnextv2":
        given = {"size": {"shortest_edge": side}}
    pixels = torch.cat(
        [processor(images=Image.fromarray(p), return_tensors="pt", **given)["pixel_values"] for p in pictures]
    )
    model: Any = transformers.AutoModel.from_pretrained(tmp_path / kind).eval()
    options = {} if kind in ("dinov2", "registers", "convnextv2") else {"interpolate_pos_encoding": True}
    if kind == "vit-mae":
        model.config.mask_ratio = 0.0
        options["noise"] = torch.arange(64.0)[None]
    with torch.inference_mode():
        outputs = [getattr(model, "get_image_features", model)(image[None], **options) for image in pixels]
    tokens = torch.cat([output.last_hidden_state for output in outputs])
    first = {"registers": 5, "ijepa": 0, "swin": 0, "siglip": 0}.get(kind, 1)
    mean = tokens[:, first:].mean(1) if tokens.ndim == 3 else tokens.mean((2, 3))
    backbone = load(name, image_size=side, pooling="mean")
    check(backbone, pictures, pixels, mean)
    assert backbone.spec.image_size == side
    if kind in ("siglip", "clip"):
        check(load(name, image_size=side), pictures, pixels, torch.cat([output.pooler_output for output in outputs]))
    assert load_with_options(options_from_spec(backbone.spec, str(tmp_path / kind)), "cpu").spec == backbone.spec
    assert load(name, image_size=32).spec == load(name).spec


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("timm/test_vit", 90, "multiple of 16, the side of a patch, got 90: use 80 or 96"),
        ("timm/levit_128s", 40, "levit|do not fit|can embed"),
        ("python:tiny_backbone.make", 64, "whose own code says how images are scaled"),
        ("transformers/VIT", 50, "multiple of 8, the side of a patch, got 50: use 48 or 56"),
    ],
)
def test_sizes_that_a_network_cannot_embed_are_refused(name: str, side: int, message: str, tmp_path: Path) -> None:
    if "VIT" in name:
        name = save_vision(tmp_path / "vit", "vit")
    weights = "default" if name.startswith(("python", "transformers")) else "none"
    with pytest.raises(UsageError, match=message):
        load(name, weights=weights, image_size=side)
    with pytest.raises(UsageError, match="image_size must be >= 1 pixel, got 0"):
        load(name, image_size=0)


def test_mean_keeps_the_first_patch_of_layers_without_a_class_token(pictures: list[Any], tmp_path: Path) -> None:
    name = save_vision(tmp_path / "vit", "vit")
    for model, layer in (("timm/vit_tiny_patch16_224", "patch_embed"), (name, "embeddings.patch_embeddings")):
        weights = "none" if model.startswith("timm") else "default"
        backbone = load(model, weights=weights, layer=(layer,), pooling="mean")
        items = np.stack([backbone.prepare(picture).value for picture in pictures])
        module = backbone.network.module.get_submodule(layer)
        with torch.inference_mode():
            patches = module(normalise(torch.from_numpy(items), backbone.spec.preprocessing))
        vectors = backbone.forward(items)[backbone.spec.layers[0].column]
        torch.testing.assert_close(torch.from_numpy(vectors), patches.mean(1), rtol=1e-4, atol=1e-5)


def test_poolings_are_given_for_each_layer_and_recorded(tmp_path: Path) -> None:
    layers = ("features", "blocks.0")
    spec = load("timm/test_vit", weights="none", layer=layers, pooling=("none", "mean")).spec
    assert [layer.pooling for layer in spec.layers] == ["none", "avg"]
    assert load_with_options(options_from_spec(spec), "cpu").spec == spec
    assert [layer.pooling for layer in load("timm/test_vit", weights="none", layer=layers).spec.layers] == [
        "none",
        "cls",
    ]
    with pytest.raises(UsageError, match="once, or once for each of the 2 layers, got"):
        load("timm/test_vit", weights="none", layer=layers, pooling=("cls", "cls", "cls"))
    old = load("timm/vit_small_patch16_dinov3", weights="none", pooling="none").spec
    assert load_with_options(options_from_spec(old), "cpu").spec == old
    new = load("timm/vit_small_patch16_dinov3", weights="none").spec
    assert list(old.diff(new)) == ["layers[0].pooling"]


@pytest.mark.parametrize(
    "name", ["timm/test_vit", "timm/test_efficientnet", "torchvision/resnet18", "transformers/swin"]
)
def test_shapes_without_arithmetic_are_those_of_a_pass(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = save_vision(tmp_path / "swin", "swin") if name.endswith("swin") else name
    network = load(name, weights="none").network
    plans = []
    for least in (0, float("inf")):
        monkeypatch.setattr(dry_run, "LARGE", least)
        plans.append(plan_layers(network, ["features"]))
    assert plans[0] == plans[1]


def test_large_network_is_loaded_without_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "LARGE", 0)
    devices = []
    forward = torch.nn.Conv2d.forward

    def watched(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        devices.append(pixels.device.type)
        return forward(self, pixels)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watched)
    load("torchvision/squeezenet1_1", weights="none")
    assert set(devices) == {"meta"}


def test_missing_weights_are_noticed_without_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    monkeypatch.setattr(dry_run, "LARGE", 0)
    name = save_vision(tmp_path / "vit", "vit")
    file = tmp_path / "vit/model.safetensors"
    state = load_file(file)
    save_file({k: v for k, v in state.items() if not k.startswith("pooler")}, file, metadata={"format": "pt"})
    load(name)
    with pytest.raises(EmbedpipeError, match=r"must have all tensors that the layer 'features' uses"):
        load(name, pooling="pooler")
    save_file({k: v for k, v in state.items() if "layernorm.weight" not in k}, file, metadata={"format": "pt"})
    with pytest.raises(EmbedpipeError, match=r"must have all tensors that the layer 'features' uses"):
        load(name)


def test_stores_and_transformers_keep_the_size(photos: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"backbone": "timm/test_vit", "weights": "none", "image_size": 64, "device": "cpu"}
    store = embedpipe.embed(photos, tmp_path / "store", **options)
    assert dataclasses.asdict(store.spec)["image_size"] == 64
    found = embedpipe.search(store, str(photos / "cat/0000.jpg"), k=1)
    assert found.table.num_rows == 1
    vectors = embedpipe.EmbeddingTransformer(**options, store=None).fit_transform([photos / id for id in store.ids()])
    np.testing.assert_allclose(vectors, store.to_numpy(), rtol=1e-4, atol=1e-5)
