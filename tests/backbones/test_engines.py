"""Engines return torch's vectors for any batch; an engine that does not is refused with the reason."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types

import numpy as np
import pytest
import torch
from tiny_transformer import save as save_text_model
from torch import nn

from embedpipe.backbones import BackboneOptions, load_backbone, load_with_options
from embedpipe.backbones.engines import choice, exporting, saved_model
from embedpipe.backbones.engines.choice import FEWEST, choose_engine, largest_distance
from embedpipe.backbones.engines.engine import TorchEngine
from embedpipe.backbones.engines.exporting import export, fold_batch_norms
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine, convert
from embedpipe.backbones.engines.saved_model import SavedModel
from embedpipe.decoding import Preprocessing
from embedpipe.errors import BackboneError, UsageError

CNN = BackboneOptions("timm/test_resnet", "none", layer=("layer2", "features"))


@functools.cache
def exported(layers=CNN.layer):
    """Return the network of `CNN` with these layers in OpenVINO's format, exported once for all tests."""
    trial = fresh(dataclasses.replace(CNN, layer=layers))._trial()
    return convert(trial.embedder, trial.check)


@functools.cache
def exported_graph():
    """Return the exported graph of `CNN`; folding batch-norms works on a copy of it."""
    trial = fresh()._trial()
    return export(trial.embedder, trial.check)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def export_once(monkeypatch):
    """Let the choice of an engine for `CNN` use the exports that the tests share."""
    monkeypatch.setattr(choice, "convert", lambda embedder, example: exported())
    monkeypatch.setattr(exporting, "export", lambda embedder, example: exported_graph())


def fresh(options=CNN):
    return dataclasses.replace(load_with_options(options, "cpu"), engines={})


def images(backbone, n):
    return torch.from_numpy(
        np.random.default_rng(n).integers(0, 256, (n, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)
    )


def fail(*args):
    raise RuntimeError("not on this machine")


def test_openvino_returns_torchs_vectors_for_any_number_of_images():
    backbone = fresh()
    trial = backbone._trial()
    engine = OpenVinoEngine(exported(), "fp32", 2, trial.image)
    for n in (1, 3, 4, 9):
        batches = [(images(backbone, n),), (images(backbone, 2),)]
        by_torch = TorchEngine(trial.embedder, "fp32", backbone.device).run(batches)
        for expected, given in zip(by_torch, engine.run(batches), strict=True):
            assert [block.shape for block in given] == [block.shape for block in expected]
            assert [block.dtype for block in given] == [np.float32, np.float32]
            assert largest_distance(expected, given) < 1e-4, n


@pytest.mark.parametrize("name", ["torch", "folded", "OpenVINO"])
def test_vectors_of_images_are_the_same_bits_in_any_batch(name):
    backbone = fresh()
    trial = backbone._trial()
    if name == "OpenVINO":
        engine = OpenVinoEngine(exported(), "fp32", 2, trial.image)
    else:
        module = trial.embedder if name == "torch" else exported_graph().module()
        assert name == "torch" or fold_batch_norms(module)
        engine = TorchEngine(module, "fp32", backbone.device)
    pixels = images(backbone, 11)
    whole = engine.run([(pixels,)])[0]
    for rows in (torch.arange(11), torch.arange(10), torch.arange(10, -1, -1), torch.tensor([3]), torch.tensor([7, 3])):
        for block, expected in zip(engine.run([(pixels[rows],)])[0], whole, strict=True):
            np.testing.assert_array_equal(block, expected[rows.numpy()])


def test_bytes_of_texts_are_no_images_and_stay_one_batch():
    sizes = []

    def module(codes):
        sizes.append(len(codes))
        return (codes.float(),)

    (outputs,) = TorchEngine(module, "fp32", torch.device("cpu")).run([(torch.zeros(10, 5, dtype=torch.uint8),)])
    assert outputs[0].shape == (10, 5)
    assert sizes == [10]


@pytest.mark.parametrize(("precision", "most"), [("bf16", 5e-2), ("fp16", 1e-2)])
def test_openvino_keeps_to_the_declared_precision(export_once, precision, most):
    backbone = fresh(dataclasses.replace(CNN, precision=precision))
    accelerated = backbone.accelerated(FEWEST)
    batch = images(backbone, 8)
    exact = fresh().forward(batch)
    for name, vectors in accelerated.forward(batch).items():
        assert vectors.dtype == np.float32
        assert largest_distance([exact[name]], [vectors]) < most


def test_folding_batch_norms_keeps_the_vectors():
    backbone = fresh()
    trial = backbone._trial()
    graph = exported_graph().module()
    assert fold_batch_norms(graph) == sum(isinstance(m, nn.BatchNorm2d) for m in backbone.network.module.modules())
    (expected,) = TorchEngine(trial.embedder, "fp32", backbone.device).run([trial.check])
    (given,) = TorchEngine(graph, "fp32", backbone.device).run([trial.check])
    assert largest_distance(expected, given) < 1e-5


@pytest.mark.long
def test_openvino_returns_torchs_vectors_for_texts_of_any_length_and_number(tmp_path):
    backbone = fresh(BackboneOptions(save_text_model(tmp_path / "bert", "bert")))
    trial = backbone._trial()
    engine = OpenVinoEngine(convert(trial.embedder, trial.check), "fp32", 2)
    expected = TorchEngine(trial.embedder, "fp32", backbone.device).run(trial.load)
    for actual, exact in zip(engine.run(trial.load), expected, strict=True):
        assert largest_distance(exact, actual) < 1e-4


def test_chosen_engine_is_reused(export_once, monkeypatch):
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 3.0)
    backbone = fresh()
    accelerated = backbone.accelerated(FEWEST)
    assert accelerated.engine_name.startswith("OpenVINO")
    assert "3.0 times as fast as torch" in accelerated.engine_reason
    assert backbone.accelerated(FEWEST + 1).engine is accelerated.engine
    assert backbone.accelerated(FEWEST - 1).engine is None
    assert accelerated.provenance["engine"] == accelerated.engine_name
    assert accelerated.spec == backbone.spec


@pytest.mark.long
def test_exported_network_is_read_from_disk(monkeypatch):
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 3.0)
    backbone = fresh()
    accelerated = backbone.accelerated(FEWEST)  # a real export
    monkeypatch.setattr(choice, "convert", fail)
    again = fresh().accelerated(FEWEST)
    assert again.engine_name == accelerated.engine_name
    np.testing.assert_allclose(
        again.forward(images(backbone, 5))["embedding"],
        backbone.forward(images(backbone, 5))["embedding"],
        rtol=1e-3,
    )


def test_damaged_file_in_the_cache_is_written_again(cache, export_once):
    backbone = fresh()
    backbone.accelerated(FEWEST)
    (file,) = cache.glob("engines/*/model.bin")
    file.write_bytes(b"")
    saved = SavedModel(backbone.spec)
    assert saved.read() is None
    assert fresh().accelerated(FEWEST).engine is not None
    assert saved.read() is not None


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "manifest.json"])
def test_every_damage_of_a_cached_network_is_noticed_and_its_file_named(cache, name):
    """A changed value of a weight gives another vector, mostly one that the few images of the trial do not show."""
    spec, random = fresh().spec, np.random.default_rng(0)
    SavedModel(spec).write(exported())
    (folder,) = (cache / "engines").iterdir()
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    for trial in range(50):
        damaged = bytearray(whole[name])
        place = int(random.integers(len(damaged)))
        match trial % 3:
            case 0:
                damaged[place] ^= 1 << int(random.integers(8))
            case 1:
                damaged[place : place + 4096] = bytes(b ^ 255 for b in damaged[place : place + 4096])
            case _:
                del damaged[place:]
        folder.mkdir(exist_ok=True)
        for file, content in whole.items():
            (folder / file).write_bytes(damaged if file == name else content)
        saved = SavedModel(spec)
        assert saved.read() is None
        assert name in saved.damage or name == "manifest.json"
        assert not folder.exists()
    SavedModel(spec).write(exported())
    assert SavedModel(spec).read() is not None


def test_cached_network_of_another_backbone_is_refused(cache):
    one, other = fresh().spec, dataclasses.replace(fresh().spec, name="other")
    SavedModel(one).write(exported())
    SavedModel(one).folder.rename(SavedModel(other).folder)
    assert SavedModel(other).read() is None


@pytest.mark.parametrize("exported_before", [False, True])
def test_engine_depends_on_the_number_of_items_not_on_the_cache_or_a_clock(export_once, monkeypatch, exported_before):
    """A table of results is the same again, on a machine with and without a cache, that is idle or busy."""
    if exported_before:
        fresh().accelerated(FEWEST)
    for gain in (0.8, 8.0):
        monkeypatch.setattr(choice, "speedup", lambda engine, other, batches, gain=gain: gain)
        assert [fresh().accelerated(items).engine_name.split()[0] for items in (3, FEWEST - 1, FEWEST)] == [
            "torch",
            "torch",
            "OpenVINO",
        ]


def test_damage_is_reported_and_no_vector_is_made_by_a_damaged_network(cache, export_once, monkeypatch):
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 3.0)
    backbone = fresh()
    SavedModel(backbone.spec).write(exported())
    (file,) = cache.glob("engines/*/model.bin")
    content = bytearray(file.read_bytes())
    content[100:4196] = bytes(4096)
    file.write_bytes(content)
    accelerated = backbone.accelerated(FEWEST)
    assert accelerated.engine_name.startswith("OpenVINO")
    assert "cache was deleted, as model.bin was damaged" in accelerated.engine_reason
    batch = images(backbone, 3)
    np.testing.assert_allclose(accelerated.forward(batch)["embedding"], backbone.forward(batch)["embedding"], rtol=1e-3)


@pytest.mark.long
def test_cached_network_with_other_vectors_is_refused_and_exported_again(export_once, monkeypatch):
    """The code of a network may have changed since its export, or the file may be damaged."""
    monkeypatch.setattr(exporting, "export", export)  # of these layers
    backbone = fresh()
    SavedModel(backbone.spec).write(exported(("layer1", "features")))
    accelerated = backbone.accelerated(FEWEST)
    assert SavedModel(backbone.spec).read() is not None
    batch = images(backbone, 3)
    np.testing.assert_allclose(accelerated.forward(batch)["embedding"], backbone.forward(batch)["embedding"], rtol=1e-3)


def test_network_that_cannot_be_exported_runs_by_torch_with_the_reason(monkeypatch):
    monkeypatch.setattr(choice, "convert", fail)
    monkeypatch.setattr(exporting, "export", fail)
    accelerated = fresh().accelerated(FEWEST)
    assert accelerated.engine_name == "torch"
    assert "OpenVINO cannot be used: RuntimeError: not on this machine" in accelerated.engine_reason


def test_without_the_extra_batch_norms_are_folded_and_the_extra_is_named(export_once, monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 2.0)
    accelerated = fresh().accelerated(FEWEST)
    assert "batch-norms folded" in accelerated.engine_name
    assert "pip install 'embedpipe[cpu]'" in accelerated.engine_reason


def test_cache_that_cannot_be_written_is_ignored(tmp_path, export_once, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "file"))
    backbone = fresh()
    batch = images(backbone, 3)
    with pytest.warns(UserWarning, match="nothing is cached"):
        accelerated = backbone.accelerated(FEWEST)
    np.testing.assert_allclose(accelerated.forward(batch)["embedding"], backbone.forward(batch)["embedding"], rtol=1e-3)


def test_cache_that_others_can_write_is_refused(cache):
    cache.mkdir()
    cache.chmod(0o777)
    with pytest.raises(UsageError, match="others can write it"):
        fresh().accelerated(FEWEST)


def test_only_the_last_used_networks_stay_in_the_cache(cache, monkeypatch):
    monkeypatch.setattr(saved_model, "CACHED_MODELS", 2)
    spec = fresh().spec
    for number in range(4):
        SavedModel(dataclasses.replace(spec, name=f"network {number}")).write(exported())
    assert len(list((cache / "engines").iterdir())) == 2


def test_plain_engine_is_kept_if_folding_is_much_slower(export_once, monkeypatch):
    backbone = fresh()
    trial = backbone._trial()
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 0.6)
    plain = backbone._by_torch(trial.names)
    assert choose_engine(trial, plain) is plain


def test_engine_with_other_vectors_than_torchs_is_never_chosen(export_once, monkeypatch):
    monkeypatch.setattr(choice, "LARGEST_DISTANCE", {"fp32": 0.0})
    accelerated = fresh().accelerated(FEWEST)
    assert accelerated.engine_name == "torch"
    assert "differ from torch's by" in accelerated.engine_reason


def test_damaged_measurements_are_measured_again():
    saved = SavedModel(fresh().spec)
    saved.write(exported())
    for text in ("5", "null", "[]", '{"x', '{"a": "fast"}', "{}"):
        (saved.folder / "speedups.json").write_text(text)
        assert saved.speedups == {}, text
        saved.note("here", 2.0)
        assert saved.speedups == {"here": 2.0}, text


class RefusesNoise(nn.Module):
    """Raises an error for noise."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)
        self.preprocessing = Preprocessing(resize=(32,), crop=(32, 32))

    def forward(self, x):
        if x.std() > 1:
            raise ValueError("looks like noise")
        return self.head(x.mean((2, 3)))


def make_small_network():
    layers = nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network = nn.Sequential(*layers)
    network.preprocessing = Preprocessing(resize=(32,), crop=(32, 32))
    return network


@pytest.fixture
def networks(monkeypatch):
    """A module with the networks above, for ``python:networks_of_the_tests.NAME``."""
    module = types.ModuleType("networks_of_the_tests")
    module.refuses_noise, module.small = RefusesNoise, make_small_network
    monkeypatch.setitem(sys.modules, "networks_of_the_tests", module)


def test_network_that_fails_on_the_trial_runs_by_torch(networks):
    accelerated = fresh(BackboneOptions("python:networks_of_the_tests.refuses_noise")).accelerated(FEWEST)
    assert accelerated.engine_name == "torch"
    assert "fails on the trial: ValueError: looks like noise" in accelerated.engine_reason


@pytest.mark.long
def test_cached_int8_network_is_checked_against_the_exact_one(cache, networks):
    options = BackboneOptions("python:networks_of_the_tests.small", precision="int8")
    backbone = load_with_options(options, "cpu")
    batch = images(backbone, 5)
    expected = backbone.forward(batch)["embedding"]
    (file,) = cache.glob("engines/*/model.bin")
    intact = file.read_bytes()
    file.write_bytes(bytes(byte ^ 64 for byte in intact))
    backbone.engines.clear()
    again = load_with_options(options, "cpu").forward(batch)["embedding"]
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert file.read_bytes() == intact
    backbone.engines.clear()


def test_int8_is_refused_for_texts():
    with pytest.raises(BackboneError, match="applies to images only"):
        load_backbone(modality="text", precision="int8", device="cpu")
