"""Vectors and pixels equal those of timm and torchvision, run one image at a time with their own transforms."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from torchvision import models

from embedpipe.backbones import load_backbone

CLOTHING = Path(__file__).parents[2].parent / "shared" / "data" / "clothing"
PHOTOS = 24
FEW = 12  # for the slow ones


@pytest.fixture(scope="module")
def paths():
    images = sorted(CLOTHING.rglob("*.jpg"))
    if len(images) < PHOTOS:
        pytest.skip(f"no photos in {CLOTHING}")
    return images[:: len(images) // PHOTOS][:PHOTOS]


def timm_reference(backbone):
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(backbone.network.module.state_dict())
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return transform, model.eval(), lambda x: model.forward_head(model.forward_features(x), pre_logits=True)


def torchvision_reference(backbone):
    name = backbone.spec.name
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, **({"init_weights": True} if name == "inception_v3" else {}))
    setattr(model, "heads" if name.startswith("vit") else "fc", torch.nn.Identity())
    return models.get_model_weights(name).DEFAULT.transforms(), model.eval(), model


def centred_cosine(actual, expected):
    actual, expected = (v.astype(np.float64) - expected.mean(axis=0, dtype=np.float64) for v in (actual, expected))
    return (actual * expected).sum(1) / np.linalg.norm(actual, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize(
    ("name", "weights", "photos", "lowest", "reference"),
    [
        ("timm/tf_efficientnet_lite0", "default", PHOTOS, 0.9999, timm_reference),
        ("torchvision/resnet18", "none", FEW, 0.999, torchvision_reference),
        pytest.param("torchvision/inception_v3", "none", FEW, 0.999, torchvision_reference, marks=pytest.mark.long),
        pytest.param("torchvision/vit_b_16", "none", FEW, 0.999, torchvision_reference, marks=pytest.mark.long),
    ],
)
def test_pixels_and_vectors_equal_the_librarys(name, weights, photos, lowest, reference, paths):
    backbone = load_backbone(name, weights=weights, device="cpu")
    transform, _, features = reference(backbone)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (backbone.spec.preprocessing.mean, backbone.spec.preprocessing.std)
    )
    pixels, expected, grey = [], [], []
    for path in paths[:photos]:
        tensor = transform(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        with torch.inference_mode():
            expected.append(features(tensor[None]).numpy()[0])
        pixels.append(backbone.prepare(path.read_bytes()).value)
        grey.append(np.abs(((tensor * std + mean) * 255).permute(1, 2, 0).numpy() - pixels[-1]).mean())
    assert np.mean(grey) < 0.01
    actual = backbone.forward(np.stack(pixels))["embedding"]
    assert centred_cosine(actual, np.stack(expected)).min() >= lowest


@pytest.mark.long
@pytest.mark.parametrize("name", ["timm/tf_efficientnet_lite0", "torchvision/resnet18"])
def test_batch_size_does_not_change_the_vectors(name, paths):
    backbone = load_backbone(name, weights="none", device="cpu")
    pixels = [backbone.prepare(path.read_bytes()).value for path in paths]
    at_once = backbone.forward(np.stack((pixels * 3)[:64]))["embedding"][:7]
    for size in (1, 7):
        parts = [backbone.forward(np.stack(pixels[i : i + size]))["embedding"] for i in range(0, 7, size)]
        error = np.linalg.norm(np.concatenate(parts) - at_once, axis=1)
        assert (error <= 1e-4 * np.linalg.norm(at_once, axis=1)).all()


def test_default_backbone_classifies_a_photo_of_coffee_as_espresso():
    data = pytest.importorskip("skimage.data")
    espresso = 967
    backbone = load_backbone(device="cpu")
    vector = backbone.forward(backbone.prepare(data.coffee()).value[None])["embedding"]
    with torch.inference_mode():
        shares = backbone.network.module.classifier(torch.from_numpy(vector)).softmax(1)[0]
    assert shares.argmax() == espresso
    assert shares[espresso] >= 0.9
    assert backbone.spec.pretrained
    assert (backbone.spec.name, backbone.spec.layers[0].dim) == ("tf_efficientnet_lite0.in1k", 1280)
    assert "efficientnet" in backbone.provenance["weights"]
