"""The registry, plug-ins by entry point, and networks of the user."""

import sys

import pytest

from embedpipe.backbones import list_backbones, load_backbone, load_with_options, options_from_spec
from embedpipe.backbones.registry import split_name
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError

PLUGIN = """
from torch import nn
from embedpipe.backbones import ImageNetwork
from embedpipe.decoding import Preprocessing

class Mine:
    def names(self):
        return ["mean"]

    def load(self, name, weights, offline):
        module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return ImageNetwork(name, module, Preprocessing(resize=(8,), crop=(8, 8)), "nowhere", pretrained=True)

broken = object()
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with entry points, as pip would leave it."""

    def make(package, **entries):
        (tmp_path / f"{package}.py").write_text(PLUGIN)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[embedpipe.backbones]", *lines, ""]))

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def test_plugin_is_listed_and_loaded(install):
    install("plugin_a", mine="plugin_a:Mine")
    assert "mine/mean" in list_backbones("mine/")
    backbone = load_backbone("mine/mean", device="cpu")
    assert (backbone.spec.provider, backbone.spec.name, backbone.spec.layers[0].dim) == ("mine", "mean", 3)
    assert load_with_options(options_from_spec(backbone.spec), "cpu").spec == backbone.spec


def test_plugin_never_replaces_a_built_in_provider(install):
    install("plugin_b", timm="plugin_b:Mine", checkpoint="plugin_b:Mine")
    with pytest.warns(UserWarning, match="'(timm|checkpoint)' is embedpipe's own") as caught:
        names = list_backbones("timm/test_resnet")
    assert len(caught) >= 2
    assert "timm/test_resnet" in names


def test_two_plugins_with_one_name_are_refused_when_used(install):
    install("plugin_c", twice="plugin_c:Mine", other="plugin_c:Mine")
    install("plugin_d", twice="plugin_d:Mine")
    with pytest.raises(BackboneError, match=r"plugin_[cd]:Mine and plugin_[cd]:Mine both register .* 'twice'"):
        load_backbone("twice/mean", device="cpu")
    assert load_backbone("other/mean", device="cpu").spec.provider == "other"


def test_plugins_that_are_not_providers_are_refused(install):
    install("plugin_e", absent="no_such_module:Mine", broken="plugin_e:broken")
    with pytest.raises(BackboneError, match=r"'absent'.*cannot be imported"):
        load_backbone("absent/mean", device="cpu")
    with pytest.raises(BackboneError, match="must have the methods 'names' and 'load'"):
        load_backbone("broken/mean", device="cpu")


def test_names_are_split_and_errors_suggest_a_name():
    assert split_name("timm/resnet50.a1_in1k") == ("timm", "resnet50.a1_in1k")
    assert split_name("checkpoint//data/a.pth") == ("checkpoint", "/data/a.pth")
    assert split_name("python:a.b:c") == ("python", "a.b:c")
    with pytest.raises(UnknownBackboneError, match="did you mean 'torchvision'"):
        split_name("torchvison/resnet18")
    with pytest.raises(UnknownBackboneError, match="'timm/resnet50'"):
        split_name("resnet50")


def test_backbones_are_listed_by_substring_and_by_pattern():
    assert "timm/resnet50.a1_in1k" in list_backbones("resnet50")
    assert list_backbones("torchvision/vgg1?_bn") == [f"torchvision/vgg1{n}_bn" for n in (1, 3, 6, 9)]
    assert len(list_backbones()) > 1000


FACTORY = """
import torch
from torch import nn
from embedpipe.decoding import Preprocessing

RECIPE = Preprocessing(resize=(8,), crop=(8, 8))

def attribute():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.preprocessing = RECIPE
    return network

def pair():
    return attribute(), RECIPE

def bare():
    return nn.Flatten()

def text():
    return "resnet"

def failing():
    raise ValueError("no luck")

def with_wrong_channels():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), RECIPE

class Empty(nn.Module):
    def forward(self, x):
        return x.new_zeros(len(x), 0)

def empty():
    return Empty(), RECIPE
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_networks", None)


def test_factory_in_the_working_folder_makes_a_backbone(factories):
    spec = load_backbone("python:my_networks.attribute", device="cpu").spec
    assert (spec.provider, spec.name, spec.layers[0].dim) == ("python", "my_networks:attribute", 4)
    assert load_backbone("python:my_networks:attribute", device="cpu").spec == spec
    assert load_backbone("python:my_networks.pair", device="cpu").spec.weights_sha256 == spec.weights_sha256
    assert str(factories) not in sys.path


def test_factory_takes_weights_from_a_file(factories):
    import torch

    state = {"0.weight": torch.ones(4, 3, 3, 3), "0.bias": torch.zeros(4)}
    torch.save(state, factories / "w.pth")
    backbone = load_backbone("python:my_networks.pair", weights=str(factories / "w.pth"), device="cpu")
    assert torch.equal(backbone.network.module[0].weight, state["0.weight"])
    loaded = load_backbone(f"checkpoint/{factories}/w.pth", arch="python:my_networks.pair", device="cpu").spec
    assert (loaded.provider, loaded.name) == ("checkpoint", "python:my_networks:pair")
    with pytest.raises(BackboneError, match="names Python code"):
        options_from_spec(loaded, "w.pth")
    assert options_from_spec(loaded, "w.pth", trust=True).arch == "python:my_networks:pair"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("my_networks.bare", BackboneError, "without 'preprocessing'"),
        ("my_networks.text", BackboneError, "returned 'resnet'"),
        ("my_networks.failing", BackboneError, "ValueError: no luck"),
        ("my_networks.with_wrong_channels", BackboneError, "with_wrong_channels fails on a blank item: RuntimeError: "),
        ("my_networks.empty", BackboneError, r"must return values, got the shape \(2, 0\)"),
        ("my_networks.atribute", UnknownBackboneError, "did you mean 'attribute'"),
        ("no_such_networks.make", UnknownBackboneError, "no module 'no_such_networks'"),
        ("nothing", UnknownBackboneError, r"must be python:module\.factory"),
    ],
)
def test_wrong_factories_are_refused(factories, name, error, message):
    with pytest.raises(error, match=message):
        load_backbone(f"python:{name}", device="cpu")


def test_error_names_a_module_that_fails_to_import(factories):
    (factories / "broken_networks.py").write_text("1 / 0")
    with pytest.raises(BackboneError, match="ZeroDivisionError"):
        load_backbone("python:broken_networks.make", device="cpu")
    with pytest.raises(UsageError, match="weights='none' does not apply to python: backbones"):
        load_backbone("python:my_networks.pair", weights="none", device="cpu")


def test_stored_spec_runs_no_code_without_trust(factories):
    spec = load_backbone("python:my_networks.pair", device="cpu").spec
    with pytest.raises(BackboneError, match="trust"):
        options_from_spec(spec)
    assert load_with_options(options_from_spec(spec, trust=True), "cpu").spec == spec


def test_every_exported_name_exists():
    import embedpipe.backbones as backbones

    assert all(getattr(backbones, name) for name in backbones.__all__)
    assert dir(backbones) == sorted(backbones.__all__)
    assert not hasattr(backbones, "nothing")
