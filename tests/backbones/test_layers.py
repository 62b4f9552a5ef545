import threading

import numpy as np
import pytest
import timm
import torch
from torch import nn

from embedpipe.backbones import (
    BackboneOptions,
    ImageNetwork,
    describe_layers,
    load_backbone,
    load_with_options,
    options_from_spec,
)
from embedpipe.backbones.engines.engine import FORWARD
from embedpipe.backbones.layers.capture import plan_layers, run_layers
from embedpipe.backbones.layers.embedder import normalise
from embedpipe.backbones.layers.pooling import default_pooling, pool
from embedpipe.backbones.layers.stages import find_stages
from embedpipe.backbones.registry import get_provider, split_name
from embedpipe.decoding import Preprocessing
from embedpipe.errors import BackboneError, UsageError


def load(name, **options):
    return load_backbone(name, weights="none", device="cpu", **options)


def batch_for(backbone, n=2):
    return np.random.default_rng(0).integers(0, 256, (n, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)


def outputs(backbone, batch, name):
    """The module's output, by hand."""
    kept = []
    module = backbone.network.module
    handle = module.get_submodule(name).register_forward_hook(lambda m, i, o: kept.append(o.clone()))
    with torch.inference_mode():
        module(normalise(torch.from_numpy(batch), backbone.network.preprocessing))
    handle.remove()
    return kept[-1]


def test_several_layers_are_captured_in_one_pass():
    names = ("features", "layer2", "layer1.0.bn2", "fc")
    backbone = load("timm/test_resnet", layer=names)
    batch = batch_for(backbone)
    vectors = backbone.forward(batch)
    assert list(vectors) == ["embedding", "embedding_layer2", "embedding_layer1_0_bn2", "embedding_fc"]
    for name in names[1:]:
        expected = outputs(backbone, batch, name)
        expected = expected if expected.ndim == 2 else expected.mean((2, 3))
        got = vectors["embedding_" + name.replace(".", "_")]
        # bn2's output is overwritten in place by the block's sum: it must be taken before.
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)
        assert got.shape[1] == next(layer.dim for layer in backbone.spec.layers if layer.name == name)


@pytest.mark.parametrize(
    ("name", "layer", "pooling", "reference"),
    [
        ("timm/test_resnet", "layer2", "avg", lambda x: x.mean((2, 3))),
        ("timm/test_resnet", "layer2", "max", lambda x: x.amax((2, 3))),
        ("timm/test_resnet", "layer2", "flatten", lambda x: x.reshape(len(x), -1)),
        ("timm/test_vit", "blocks.2", None, lambda x: x[:, 0]),
        ("timm/test_vit", "blocks.2", "cls", lambda x: x[:, 0]),
        ("timm/test_vit", "blocks.2", "avg", lambda x: x[:, 1:].mean(1)),
        ("timm/test_vit", "blocks.2", "max", lambda x: x[:, 1:].amax(1)),
        ("timm/test_vit", "blocks.2", "flatten", lambda x: x.reshape(len(x), -1)),
        ("timm/test_vit2", "blocks.2", None, lambda x: x[:, 1:].mean(1)),  # one register, no class token
    ],
)
def test_pooling_equals_a_direct_computation(name, layer, pooling, reference):
    backbone = load(name, layer=(layer,), pooling=pooling)
    batch = batch_for(backbone, 1)
    (vectors,) = backbone.forward(batch).values()
    np.testing.assert_allclose(vectors, reference(outputs(backbone, batch, layer)).numpy(), rtol=1e-4, atol=1e-5)
    assert load_with_options(options_from_spec(backbone.spec), "cpu").spec == backbone.spec


def test_vectors_do_not_change_with_the_next_batch():
    backbone = load("timm/test_vit", layer=("blocks.0", "blocks.1"))
    batch = batch_for(backbone)
    first = backbone.forward(batch)
    kept = {name: vectors.copy() for name, vectors in first.items()}
    backbone.forward(255 - batch)
    for name, vectors in first.items():
        np.testing.assert_array_equal(vectors, kept[name])


def test_wrong_layers_and_poolings_are_refused():
    with pytest.raises(UsageError, match=r"did you mean 'layer3'\? `embedpipe backbones"):
        load("timm/test_resnet", layer=("layr3",))
    with pytest.raises(UsageError, match="needs vectors"):
        load("timm/test_resnet", layer=("layer3",), pooling="none")
    with pytest.raises(UsageError, match="needs a class token"):
        load("timm/test_resnet", layer=("layer3",), pooling="cls")
    with pytest.raises(UsageError, match="return vectors already"):
        load("timm/test_resnet", pooling="max")
    with pytest.raises(BackboneError, match="never calls"):
        load("torchvision/googlenet", layer=("aux1",))
    with pytest.raises(UsageError, match="must name each layer once"):
        BackboneOptions(layer=("a", "a"))
    with pytest.raises(UsageError, match="did you mean 'max'"):
        BackboneOptions(pooling="maxx")
    with pytest.raises(UsageError, match="fp32, fp16, bf16"):
        BackboneOptions(precision="fp8")


class Odd(nn.Module):
    """Gives a tuple, windows in place of images, and five dimensions."""

    def __init__(self):
        super().__init__()
        self.pair, self.windows, self.video = Pair(), Windows(), Video()

    def forward(self, x):
        self.pair(x), self.windows(x), self.video(x)
        return x.mean((2, 3))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Windows(nn.Module):
    def forward(self, x):
        return x.reshape(-1, 4)


class Video(nn.Module):
    def forward(self, x):
        return x[:, :, None]


def test_outputs_without_one_row_per_item_are_refused():
    odd = ImageNetwork("odd", Odd().eval(), Preprocessing(resize=(8,), crop=(8, 8)), "here", False)
    with pytest.raises(BackboneError, match="must return a tensor, got tuple"):
        plan_layers(odd, ["pair"])
    with pytest.raises(BackboneError, match="must return one row per item"):
        plan_layers(odd, ["windows"])
    with pytest.raises(UsageError, match="use flatten"):
        plan_layers(odd, ["video"], {"video": "avg"})
    assert plan_layers(odd, ["video"])[0].pooling == "flatten"
    assert plan_layers(odd, ["features"])[0].dim == 3
    with pytest.raises(UsageError, match="same column name"):
        plan_layers(ImageNetwork("odd", Clash(), odd.preprocessing, "here", False), ["a_b", "a.b"])


class Clash(nn.Module):
    def __init__(self):
        super().__init__()
        self.a_b = nn.Identity()
        self.a = nn.ModuleDict({"b": nn.Identity()})

    def forward(self, x):
        return self.a["b"](self.a_b(x.mean((2, 3))))


def test_prefix_tokens_are_left_out_if_present():
    """As in DeiT (two tokens) and CaiT (the class token comes in late)."""
    recipe = Preprocessing(resize=(8,), crop=(8, 8))
    deit = ImageNetwork("x", nn.Module(), recipe, "here", False, prefix_tokens=2, class_token=True, patches=9)
    late, tokens = torch.rand(2, 9, 4), torch.rand(2, 11, 4)
    assert (default_pooling(deit, tokens, "blocks.0"), default_pooling(deit, late, "blocks.1")) == ("cls", "avg")
    torch.testing.assert_close(pool(deit, tokens, "avg", "x"), tokens[:, 2:].mean(1))
    torch.testing.assert_close(pool(deit, tokens, "cls", "x"), tokens[:, 0])
    torch.testing.assert_close(pool(deit, late, "max", "x"), late.amax(1))
    with pytest.raises(UsageError, match="needs a class token"):
        pool(deit, late, "cls", "x")


@pytest.mark.parametrize("channels_last", [False, True])
def test_ambiguous_feature_map_uses_the_layout_of_the_network(channels_last):
    recipe = Preprocessing(resize=(8,), crop=(8, 8))
    network = ImageNetwork("x", nn.Identity(), recipe, "here", False, channels_last=channels_last)
    cube = torch.rand(2, 4, 4, 4)
    torch.testing.assert_close(pool(network, cube, "avg", "x"), cube.mean((1, 2) if channels_last else (2, 3)))


def test_layout_of_rectangular_feature_maps_is_detected():
    network = ImageNetwork("x", nn.Identity(), Preprocessing(resize=(64, 32), crop=(64, 32)), "here", False)
    first, last = torch.rand(2, 5, 8, 4), torch.rand(2, 8, 4, 5)
    torch.testing.assert_close(pool(network, first, "avg", "x"), first.mean((2, 3)))
    torch.testing.assert_close(pool(network, last, "max", "x"), last.amax((1, 2)))


def test_hooks_are_removed_after_a_pass_and_after_an_error():
    network = ImageNetwork("odd", Odd().eval(), Preprocessing(resize=(8,), crop=(8, 8)), "here", False)
    with pytest.raises(BackboneError):
        plan_layers(network, ["pair"])
    run_layers(network, ["features"], torch.zeros(1, 3, 8, 8), lambda name, output: output)
    assert not any(module._forward_hooks for module in network.module.modules())


def stages_of(name):
    """On the meta device: shapes without arithmetic."""
    provider, name = split_name(name)
    with torch.device("meta"):
        network = get_provider(provider).load(name, "none", offline=True)
    network.module.eval()
    return find_stages(network)


STAGES = {
    "torchvision/resnet18": "conv1 layer1 layer2 layer3 layer4",
    "torchvision/vgg11": " ".join(f"features.{i}" for i in (0, 3, 6, 8, 11, 13, 16, 18)) + " classifier.0 classifier.3",
    "torchvision/densenet121": (
        "features.conv0 features.denseblock1 features.transition1 features.denseblock2 features.transition2 "
        "features.denseblock3 features.transition3 features.denseblock4"
    ),
    "torchvision/vit_b_32": "conv_proj " + " ".join(f"encoder.layers.encoder_layer_{i}" for i in range(12)),
    "torchvision/squeezenet1_1": " ".join(f"features.{i}" for i in (0, 3, 4, 6, 7, 9, 10, 11, 12)),
    "timm/tf_efficientnet_lite0": "conv_stem " + " ".join(f"blocks.{i}" for i in range(7)) + " conv_head",
    "timm/vit_tiny_patch16_224": "patch_embed " + " ".join(f"blocks.{i}" for i in range(12)),
    "timm/convnext_atto": "stem stages.0 stages.1 stages.2 stages.3",
    "timm/swin_tiny_patch4_window7_224": "patch_embed layers.0 layers.1 layers.2 layers.3",
}


@pytest.mark.parametrize(("name", "expected"), STAGES.items())
def test_stages_are_the_modules_of_the_feature_extractor(name, expected):
    stages = stages_of(name)
    assert [stage.name for stage in stages] == expected.split()
    assert all(stage.dim > 0 and stage.parameters > 0 for stage in stages)
    if name.startswith("timm/swin"):  # maps with the channels last
        assert [stage.dim for stage in stages] == [96, 96, 192, 384, 768]


def test_stage_includes_its_norm_activation_and_pool():
    stages = {stage.name: stage for stage in describe_layers("torchvision/resnet18")}
    assert stages["conv1"].tap == "maxpool"
    assert (stages["layer4"].tap, stages["layer4"].shape, stages["layer4"].dim) == ("layer4", (512, 7, 7), 512)
    last = stages_of("timm/vit_tiny_patch16_224")[-1]
    assert (last.tap, last.shape, last.dim) == ("norm", (197, 192), 192)
    assert stages_of("torchvision/vgg11")[-1].tap == "classifier.5"


def test_drop_last_captures_the_layer_of_that_stage():
    dropped = load("torchvision/resnet18", drop_last=1)
    named = load("torchvision/resnet18", layer=("layer3",))
    assert dropped.spec.fingerprint() == named.spec.fingerprint()
    assert dropped.spec.layers[0].dim == 256
    with pytest.raises(UsageError, match=r"drop_last must be <= 4, as .* has 5 stages"):
        load("torchvision/resnet18", drop_last=5)
    with pytest.raises(UsageError, match="must not both be set"):
        BackboneOptions(layer=("layer3",), drop_last=1)
    with pytest.raises(UsageError, match=r"drop_last must be >= 0, got"):
        BackboneOptions(drop_last=-1)


def test_stages_without_a_single_tensor_are_listed_but_not_captured():
    stages = describe_layers("timm/crossvit_tiny_240")
    assert (stages[-1].shape, stages[-1].dim) == ((), 0)
    with pytest.raises(BackboneError, match="must return a tensor, got list"):
        load("timm/crossvit_tiny_240", drop_last=1)


def test_timm_has_the_attributes_that_layers_need():
    model = timm.create_model("test_vit")
    assert (model.num_prefix_tokens, model.patch_embed.num_patches) == (1, 100)
    assert timm.create_model("test_vit2").cls_token is None


def test_layers_are_described_while_no_other_thread_runs_the_network():
    thread = threading.Thread(target=describe_layers, args=["timm/test_resnet"])
    with FORWARD:
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join(30)
    assert not thread.is_alive()
