import re

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from embedpipe.backbones import describe_layers, load_backbone
from embedpipe.backbones.layers.capture import plan_layers
from embedpipe.backbones.layers.embedder import normalise
from embedpipe.backbones.providers.torchvision import TorchvisionProvider
from embedpipe.errors import UnknownBackboneError, UsageError, WeightsError

ALL = models.list_models(module=models)
#: What layers fill their new weights by.
FILLS = ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_", "zeros_", "ones_", "trunc_normal_", "constant_")


def normalised(backbone, batch):
    return normalise(torch.from_numpy(batch), backbone.network.preprocessing)


def family(name: str) -> str:
    return re.match("[a-z]+", name)[0]


def first_of_family(name: str) -> bool:
    return next(other for other in ALL if family(other) == family(name)) == name


@pytest.mark.parametrize(
    "name", [name if first_of_family(name) else pytest.param(name, marks=pytest.mark.long) for name in ALL]
)
def test_every_classification_model_builds_and_has_features(name, monkeypatch):
    """On the meta device: shapes without arithmetic. RegNets read tensors to build themselves, so move later."""
    for fill in FILLS:
        monkeypatch.setattr(nn.init, fill, lambda tensor, *args, **kwargs: tensor)
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = TorchvisionProvider().load(name, "none", offline=True)
    network.module.to("meta")
    (layer,) = plan_layers(network, ["features"])
    wide = 4096 if name.startswith(("vgg", "alexnet")) else None
    assert layer.dim == (wide or layer.dim)
    assert 256 <= layer.dim <= 7392
    height, width = network.preprocessing.crop
    assert height == width
    assert network.preprocessing.resize[0] >= height
    if name == "inception_v3":
        assert (height, width) == (299, 299)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", "fc"),
        ("googlenet", "fc"),
        ("mobilenet_v3_small", "classifier"),
        pytest.param("swin_t", "head", marks=pytest.mark.long),
    ],
)
def test_classifier_on_the_features_returns_the_models_output(name, head):
    backbone = load_backbone(f"torchvision/{name}", weights="none", device="cpu")
    batch = np.random.default_rng(0).integers(0, 256, (2, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)
    features = torch.from_numpy(backbone.forward(batch)["embedding"])
    module = backbone.network.module
    classifier = getattr(module, head)
    classifier = classifier[-1] if isinstance(classifier, torch.nn.Sequential) else classifier
    with torch.inference_mode():
        torch.testing.assert_close(
            classifier(features),
            module(normalised(backbone, batch)),
            rtol=1e-4,
            atol=1e-4,
        )


def test_squeezenet_features_are_averaged_feature_maps():
    backbone = load_backbone("torchvision/squeezenet1_1", weights="none", device="cpu")
    batch = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = backbone.network.module.features(normalised(backbone, batch)).mean((2, 3)).numpy()
    np.testing.assert_allclose(backbone.forward(batch)["embedding"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["squeezenet1_1", "regnet_y_400mf", "mobilenet_v3_small"])
def test_number_of_classes_is_that_of_stored_weights(tmp_path, name):
    model = models.get_model(name, weights=None, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone(f"torchvision/{name}", weights=str(tmp_path / "w.pth"), device="cpu")
    batch = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    assert backbone.network.module(normalised(backbone, batch)).shape == (1, 3)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_stored_inception_weights_load_with_and_without_auxiliary_heads(tmp_path, auxiliary):
    model = models.googlenet(weights=None, num_classes=7, aux_logits=auxiliary, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "g.pth")
    backbone = load_backbone("torchvision/googlenet", weights=str(tmp_path / "g.pth"), device="cpu")
    assert backbone.network.module.fc.out_features == 7
    assert backbone.network.module.transform_input
    assert backbone.spec.pretrained


def test_random_inception_equals_that_of_torchvisions_builder():
    module = load_backbone("torchvision/inception_v3", weights="none", device="cpu").network.module
    assert not module.transform_input


def test_weights_without_a_classifier_are_loaded(tmp_path):
    state = models.resnet18(weights=None).state_dict()
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "r.pth")
    backbone = load_backbone("torchvision/resnet18", weights=str(tmp_path / "r.pth"), device="cpu")
    again = load_backbone("torchvision/resnet18", weights=str(tmp_path / "r.pth"), device="cpu")
    assert backbone.spec == again.spec
    assert backbone.spec.layers[0].dim == 512


def test_error_names_tensors_of_another_architecture(tmp_path):
    torch.save(models.resnet34(weights=None).state_dict(), tmp_path / "r.pth")
    with pytest.raises(WeightsError, match=r"layer1\.2\.conv1"):
        load_backbone("torchvision/resnet18", weights=str(tmp_path / "r.pth"), device="cpu")


def test_unknown_names_and_misplaced_options_are_refused():
    with pytest.raises(UnknownBackboneError, match=r"did you mean 'resnet18'\? `embedpipe backbones"):
        load_backbone("torchvision/resnet17", device="cpu")
    with pytest.raises(UsageError, match="checkpoint/PATH"):
        load_backbone("torchvision/resnet18", arch="timm/resnet18", device="cpu")


def test_describing_layers_needs_no_published_weights():
    stages = describe_layers("torchvision/resnet18", offline=True)
    assert [stage.tap for stage in stages] == ["maxpool", "layer1", "layer2", "layer3", "layer4"]
