"""Engines give torch's vectors, whatever the batch; one that does not is refused, and the reason said."""

from __future__ import annotations

import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from embedpipe.backbones import BackboneOptions, load_backbone, load_with_options
from embedpipe.backbones.engines import choice, saved_model
from embedpipe.backbones.engines.choice import MANY, choose_engine, farthest
from embedpipe.backbones.engines.engine import TorchEngine
from embedpipe.backbones.engines.exporting import export, fold_batch_norms
from embedpipe.backbones.engines.openvino_engine import OpenVinoEngine, convert
from embedpipe.backbones.engines.saved_model import SavedModel
from embedpipe.decoding import Preprocessing
from embedpipe.errors import BackboneError

CNN = BackboneOptions("timm/test_resnet", "none", layer=("layer2", "features"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fresh(options=CNN):
    return dataclasses.replace(load_with_options(options, "cpu"), engines={})


def pictures(backbone, n):
    return torch.from_numpy(
        np.random.default_rng(n).integers(0, 256, (n, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)
    )


def refuse(*args):
    raise RuntimeError("not on this machine")


def test_openvino_gives_torchs_vectors_for_any_number_of_images():
    backbone = fresh()
    trial = backbone._trial()
    engine = OpenVinoEngine(convert(trial.embedder, trial.check), "fp32", 2, trial.image)
    for n in (1, 3, 4, 9):
        batches = [(pictures(backbone, n),), (pictures(backbone, 2),)]
        by_torch = TorchEngine(trial.embedder, "fp32", backbone.device).run(batches)
        for expected, given in zip(by_torch, engine.run(batches), strict=True):
            assert [block.shape for block in given] == [block.shape for block in expected]
            assert [block.dtype for block in given] == [np.float32, np.float32]
            assert farthest(expected, given) < 1e-4, n


@pytest.mark.parametrize(("precision", "most"), [("bf16", 5e-2), ("fp16", 1e-2)])
def test_openvino_holds_the_declared_precision(precision, most):
    backbone = fresh(dataclasses.replace(CNN, precision=precision))
    found = backbone.accelerated(MANY)
    batch = pictures(backbone, 8)
    exact = fresh().forward(batch)
    for name, vectors in found.forward(batch).items():
        assert vectors.dtype == np.float32
        assert farthest([exact[name]], [vectors]) < most


def test_folded_batch_norms_leave_the_vectors_as_they_are():
    backbone = fresh()
    trial = backbone._trial()
    graph = export(trial.embedder, trial.check).module()
    assert fold_batch_norms(graph) == sum(isinstance(m, nn.BatchNorm2d) for m in backbone.network.module.modules())
    (expected,) = TorchEngine(trial.embedder, "fp32", backbone.device).run([trial.check])
    (given,) = TorchEngine(graph, "fp32", backbone.device).run([trial.check])
    assert farthest(expected, given) < 1e-5


def test_texts_of_any_length_and_number():
    backbone = fresh(BackboneOptions(modality="text"))
    trial = backbone._trial()
    engine = OpenVinoEngine(convert(trial.embedder, trial.check), "fp32", 2)
    expected = TorchEngine(trial.embedder, "fp32", backbone.device).run(trial.load)
    for ours, theirs in zip(engine.run(trial.load), expected, strict=True):
        assert farthest(theirs, ours) < 1e-4


def test_an_engine_is_found_once_and_kept_on_disk(cache, monkeypatch):
    backbone = fresh()
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 3.0 if "OpenVINO" in engine.name else 0.5)
    found = backbone.accelerated(MANY)
    assert found.engine_name.startswith("OpenVINO")
    assert "3.0 times as fast as torch" in found.reason
    assert backbone.accelerated(100).engine is found.engine
    # Another process finds the exported network, and does not export again, however few items there are.
    monkeypatch.setattr(choice, "convert", refuse)
    again = fresh().accelerated(20)
    assert again.engine_name == found.engine_name
    np.testing.assert_allclose(
        again.forward(pictures(backbone, 5))["embedding"],
        backbone.forward(pictures(backbone, 5))["embedding"],
        rtol=1e-3,
    )
    assert found.provenance["engine"] == found.engine_name
    assert found.spec == backbone.spec


def test_a_damaged_file_in_the_cache_is_made_again(cache):
    backbone = fresh()
    backbone.accelerated(MANY)
    (file,) = cache.glob("engines/*/model.bin")
    file.write_bytes(b"")
    saved = SavedModel(backbone.spec)
    assert saved.read() is None
    assert fresh().accelerated(MANY).engine is not None
    assert saved.read() is not None


@pytest.mark.parametrize("items", [50, MANY])
def test_another_networks_vectors_are_refused_and_it_is_made_again(monkeypatch, items):
    """As where the code of a network has changed, and the cache has the old one's; or bits of the file have."""
    backbone, other = fresh(), fresh(dataclasses.replace(CNN, layer=("layer1", "features")))
    trial = other._trial()
    SavedModel(backbone.spec).write(convert(trial.embedder, trial.check))
    found = backbone.accelerated(items)
    saved = SavedModel(backbone.spec)
    assert (saved.read() is None) == (items == 50)
    batch = pictures(backbone, 3)
    np.testing.assert_allclose(found.forward(batch)["embedding"], backbone.forward(batch)["embedding"], rtol=1e-3)


def test_what_cannot_be_exported_runs_by_torch_and_the_reason_is_said(monkeypatch):
    monkeypatch.setattr(choice, "convert", refuse)
    monkeypatch.setattr(choice, "export", refuse)
    found = fresh().accelerated(MANY)
    assert found.engine_name == "torch"
    assert "OpenVINO cannot be used: RuntimeError: not on this machine" in found.reason


def test_without_the_extra_batch_norms_are_folded_and_the_extra_named(monkeypatch):
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 2.0)
    found = fresh().accelerated(MANY)
    assert "batch-norms folded" in found.engine_name
    assert "pip install 'embedpipe[cpu]'" in found.reason


def test_few_items_are_not_worth_an_export(monkeypatch):
    monkeypatch.setattr(choice, "convert", refuse)
    backbone = fresh()
    assert backbone.accelerated(3).engine is None
    found = backbone.accelerated(100)
    assert found.engine_name == "torch"
    assert "too few to look for a faster engine" in found.reason
    assert not backbone.engines


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EMBEDPIPE_CACHE", str(tmp_path / "file"))
    backbone = fresh()
    batch = pictures(backbone, 3)
    found = backbone.accelerated(MANY).forward(batch)["embedding"]
    np.testing.assert_allclose(found, backbone.forward(batch)["embedding"], rtol=1e-3)


def test_only_the_last_used_networks_stay_in_the_cache(cache, monkeypatch):
    monkeypatch.setattr(saved_model, "KEPT", 2)
    backbone = fresh()
    trial = backbone._trial()
    model = convert(trial.embedder, trial.check)
    for number in range(4):
        SavedModel(dataclasses.replace(backbone.spec, name=f"network {number}")).write(model)
    assert len(list((cache / "engines").iterdir())) == 2


def test_a_plain_engine_is_measured_against_itself(monkeypatch):
    backbone = fresh()
    trial = backbone._trial()
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(choice, "speedup", lambda engine, other, batches: 0.9)
    plain = backbone._by_torch(trial.names)
    assert choose_engine(trial, plain, MANY) is plain


def test_an_engine_whose_vectors_are_not_torchs_is_never_taken(monkeypatch):
    monkeypatch.setattr(choice, "FARTHEST", {"fp32": 0.0})
    found = fresh().accelerated(MANY)
    assert found.engine_name == "torch"
    assert "of their length from torch's" in found.reason


def test_damaged_measurements_are_taken_again(cache):
    backbone = fresh()
    saved = SavedModel(backbone.spec)
    trial = backbone._trial()
    saved.write(convert(trial.embedder, trial.check))
    for text in ("5", "null", "[]", '{"x', '{"a": "fast"}', "{}"):
        (saved.folder / "speedups.json").write_text(text)
        assert saved.speedups == {}, text
        saved.note("here", 2.0)
        assert saved.speedups == {"here": 2.0}, text


class Shy(nn.Module):
    """Does not like noise."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 4)
        self.preprocessing = Preprocessing(resize=(32,), crop=(32, 32))

    def forward(self, x):
        if x.std() > 1:
            raise ValueError("looks like noise")
        return self.head(x.mean((2, 3)))


def make_shy():
    return Shy()


def test_a_network_that_fails_on_the_trial_runs_by_torch():
    module = types.ModuleType("shy_network")
    module.make = make_shy
    sys.modules["shy_network"] = module
    found = fresh(BackboneOptions("python:shy_network.make")).accelerated(MANY)
    assert found.engine_name == "torch"
    assert "fails on the trial: ValueError: looks like noise" in found.reason


def test_int8_that_was_kept_is_held_against_the_network_again(cache, monkeypatch):
    options = BackboneOptions("timm/test_resnet", "none", precision="int8")
    backbone = load_with_options(options, "cpu")
    batch = pictures(backbone, 5)
    expected = backbone.forward(batch)["embedding"]
    (file,) = cache.glob("engines/*/model.bin")
    whole = file.read_bytes()
    file.write_bytes(bytes(byte ^ 64 for byte in whole))
    backbone.engines.clear()
    again = load_with_options(options, "cpu").forward(batch)["embedding"]
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert file.read_bytes() == whole
    backbone.engines.clear()


def test_int8_is_refused_where_there_is_none():
    with pytest.raises(BackboneError, match="for images"):
        load_backbone(modality="text", precision="int8", device="cpu")
