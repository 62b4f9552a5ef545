import dataclasses
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from embedpipe.backbones import load_backbone
from embedpipe.backbones.layers.embedder import normalise
from embedpipe.backbones.providers.timm.packages import LITE_STAGES, PACKAGES
from embedpipe.backbones.providers.timm.provider import TimmProvider
from embedpipe.decoding import to_pixels
from embedpipe.errors import UnknownBackboneError, WeightsError

#: One small network of each family, with the heads that differ: distilled, attention pool, none, map.
FAMILIES = {
    "resnet18": 512,
    "mobilenetv3_small_050": 1024,
    "vit_tiny_patch16_224": 192,
    "deit_tiny_distilled_patch16_224": 192,
    "eva02_tiny_patch14_224": 192,
    "swin_tiny_patch4_window7_224": 768,
    "convnext_atto": 320,
    "mixer_s32_224": 512,
    "levit_128s": 384,
    "maxvit_rmlp_pico_rw_256": 256,
    "regnetx_002": 368,
    "densenet121": 1024,
    "crossvit_tiny_240": 288,
    "test_vit3": 96,
    "test_resnet": 96,
}
#: Those that take a second each, and whose heads are those of others.
SLOW = {"maxvit_rmlp_pico_rw_256", "densenet121", "crossvit_tiny_240", "levit_128s"}


def normalised(backbone, batch):
    return normalise(torch.from_numpy(batch), backbone.network.preprocessing)


def batch_for(backbone, n=1):
    return np.random.default_rng(0).integers(0, 256, (n, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "dim"),
    [pytest.param(*family, marks=[pytest.mark.long] if family[0] in SLOW else []) for family in FAMILIES.items()],
)
def test_features_equal_timms(name, dim):
    backbone = load_backbone(f"timm/{name}", weights="none", device="cpu")
    model = backbone.network.module
    batch = batch_for(backbone)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(normalised(backbone, batch)), pre_logits=True)
    np.testing.assert_allclose(backbone.forward(batch)["embedding"], expected.numpy(), rtol=1e-3, atol=1e-4)
    assert backbone.spec.layers[0].dim == dim
    assert not backbone.spec.pretrained


@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_base_patch32_siglip_256", "samvit_base_patch16"])
def test_networks_without_a_classifier_have_features(name):
    with torch.device("meta"):
        network = TimmProvider().load(name, "none", offline=True)
        pixels = torch.zeros(1, 3, *network.preprocessing.crop)
        features = network.features(network.module, pixels)
    assert features.shape[:2] == (1, network.module.num_features if "sam" not in name else 256)


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (64, 64), (180, 1200)])
@pytest.mark.parametrize(
    "changes",
    [
        {"crop_mode": "center", "crop_pct": 0.875},
        {"crop_mode": "center", "crop_pct": 1.0, "input_size": (3, 96, 64)},
        {"crop_mode": "squash", "crop_pct": 0.9},
        {"crop_mode": "border", "crop_pct": 1.0},
        {"crop_mode": "border", "crop_pct": 0.9, "input_size": (3, 96, 64)},
        {"crop_mode": "center", "crop_pct": 1.15, "interpolation": "bilinear"},
    ],
)
def test_pixels_equal_those_of_timms_evaluation_transform(monkeypatch, changes, size):
    cfg = dataclasses.replace(timm.get_pretrained_cfg("resnet18"), **{"input_size": (3, 64, 64), **changes})
    model = timm.create_model("resnet18", pretrained=False, pretrained_cfg=cfg)
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: model)
    recipe = TimmProvider().load("resnet18", "none", offline=True).preprocessing
    config = timm.data.resolve_model_data_config(model)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)).resize(size)
    expected = timm.data.create_transform(**config, is_training=False, normalize=False)(picture)
    difference = np.abs(to_pixels(picture, recipe).astype(int) - expected.permute(1, 2, 0).numpy())
    assert difference.mean() < 0.4  # of noise, where Pillow may begin with the other side than torch
    assert (recipe.mean, recipe.std) == (tuple(config["mean"]), tuple(config["std"]))


def test_default_tag_may_be_left_out_of_a_name():
    plain = load_backbone("timm/test_resnet", weights="none", device="cpu").spec
    tagged = load_backbone("timm/test_resnet.r160_in1k", weights="none", device="cpu").spec
    assert plain.fingerprint() == tagged.fingerprint()
    assert plain.name == "test_resnet.r160_in1k"


@pytest.mark.parametrize("classes", [0, 1000, 3])
def test_number_of_classes_is_that_of_the_weights(tmp_path, classes):
    model = timm.create_model("test_resnet", num_classes=classes)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone("timm/test_resnet", weights=str(tmp_path / "w.pth"), device="cpu")
    assert backbone.network.module.num_classes == classes
    assert backbone.spec.pretrained
    batch = batch_for(backbone)
    with torch.inference_mode():
        expected = model.eval().forward_head(model.forward_features(normalised(backbone, batch)), pre_logits=True)
    np.testing.assert_allclose(backbone.forward(batch)["embedding"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_weights_in_formats_that_timm_converts_are_loaded(tmp_path):
    """Position embeddings of another picture size: timm's own filter resamples them."""
    small = timm.create_model("test_vit", img_size=96).state_dict()
    torch.save(small, tmp_path / "w.pth")
    backbone = load_backbone("timm/test_vit", weights=str(tmp_path / "w.pth"), device="cpu")
    assert small["pos_embed"].shape[1] == 37
    assert backbone.network.module.pos_embed.shape[1] == 101
    torch.testing.assert_close(backbone.network.module.norm.weight.detach(), small["norm.weight"])


def test_weights_of_another_architecture_are_refused(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth do not fit the architecture"):
        load_backbone("timm/test_resnet", weights=str(tmp_path / "w.pth"), device="cpu")


def test_unknown_names_and_tags_are_refused():
    with pytest.raises(UnknownBackboneError, match=r"did you mean 'resnet18'\? `embedpipe backbones"):
        load_backbone("timm/resnet17", device="cpu")
    with pytest.raises(UnknownBackboneError, match=r"resnet18\.a1_in1k"):
        load_backbone("timm/resnet18.no_such", device="cpu")
    with pytest.raises(WeightsError, match="publishes no weights"):
        load_backbone("timm/coatnet_0_224", device="cpu")


def test_folder_with_timms_configuration_is_loaded(tmp_path):
    from safetensors.torch import save_file

    model = timm.create_model("test_resnet", num_classes=4)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    cfg = {**model.pretrained_cfg, "num_classes": 4, "crop_pct": 1.0, "mean": [0.1, 0.2, 0.3]}
    config = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": cfg}
    (tmp_path / "config.json").write_text(json.dumps(config))
    backbone = load_backbone(f"checkpoint/{tmp_path}", device="cpu")
    assert (backbone.spec.provider, backbone.spec.name) == ("checkpoint", "timm/test_resnet")
    assert backbone.spec.preprocessing.mean == (0.1, 0.2, 0.3)
    assert backbone.spec.preprocessing.resize == backbone.spec.preprocessing.crop[:1]
    assert backbone.network.module.num_classes == 4


def test_stages_of_packaged_networks_are_those_of_timm() -> None:
    assert LITE_STAGES.keys() == PACKAGES.keys()
    for name, stages in LITE_STAGES.items():
        assert tuple(map(len, timm.create_model(name).blocks)) == stages
