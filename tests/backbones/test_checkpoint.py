import argparse
import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from embedpipe.backbones import load_backbone, load_with_options, options_from_spec
from embedpipe.backbones.layers.embedder import normalise
from embedpipe.backbones.weights.checkpoint import read_checkpoint
from embedpipe.errors import BackboneError, UsageError, WeightsError
from embedpipe.finetuning.run_folder import save_backbone


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return timm.create_model("test_resnet", num_classes=5)


def load(path, **options):
    return load_backbone(f"checkpoint/{path}", device="cpu", **options)


def test_pth_and_safetensors_have_the_same_fingerprint(model, tmp_path):
    torch.save({"arch": "test_resnet", "state_dict": model.state_dict()}, tmp_path / "a.pth")
    save_file(model.state_dict(), tmp_path / "b.safetensors", {"architecture": "timm/test_resnet"})
    parallel = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": parallel, "epoch": 3}, tmp_path / "c.pt")
    specs = [
        load(tmp_path / "a.pth").spec,
        load(tmp_path / "b.safetensors").spec,
        load(tmp_path / "c.pt", arch="timm/test_resnet").spec,
    ]
    assert len({spec.fingerprint() for spec in specs}) == 1
    assert (specs[0].provider, specs[0].name, specs[0].pretrained) == ("checkpoint", "timm/test_resnet", True)


@pytest.mark.long
def test_fingerprint_is_the_same_in_another_process(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "b.safetensors", {"architecture": "timm/test_resnet"})
    script = (
        "import sys; from embedpipe import load_backbone; "
        "print(load_backbone(sys.argv[1], device='cpu').spec.fingerprint())"
    )
    name = f"checkpoint/{tmp_path}/b.safetensors"
    done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == load(tmp_path / "b.safetensors").spec.fingerprint()


def test_spec_loads_from_a_moved_file(model, tmp_path):
    torch.save({"arch": "test_resnet", "state_dict": model.state_dict()}, tmp_path / "a.pth")
    spec = load(tmp_path / "a.pth", layer=("layer3",), pooling="max").spec
    (tmp_path / "a.pth").rename(tmp_path / "moved.pth")
    assert load_with_options(options_from_spec(spec, str(tmp_path / "moved.pth")), "cpu").spec == spec
    with pytest.raises(WeightsError, match="weights='FILE'"):
        options_from_spec(spec)


def test_changed_file_is_read_again(model, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(model.state_dict(), path, {"architecture": "timm/test_resnet"})
    before = load(path)
    assert load(path).network is before.network
    changed = {
        name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    save_file(changed, path, {"architecture": "timm/test_resnet"})
    assert load(path).spec.weights_sha256 != before.spec.weights_sha256


def test_preprocessing_of_the_file_is_used(model, tmp_path):
    recipe = {
        "resize": [40, 30],
        "crop": [30, 30],
        "interpolation": "bilinear",
        "mean": [0.0, 0.0, 0.0],
        "std": [1, 1, 1],
    }
    metadata = {"architecture": "timm/test_resnet", "preprocessing": json.dumps(recipe)}
    save_file(model.state_dict(), tmp_path / "b.safetensors", metadata)
    spec = load(tmp_path / "b.safetensors").spec
    assert (spec.preprocessing.resize, spec.preprocessing.crop) == ((40, 30), (30, 30))
    save_file(model.state_dict(), tmp_path / "c.safetensors", {**metadata, "preprocessing": '{"size": 3}'})
    with pytest.raises(WeightsError, match="not a recipe"):
        load(tmp_path / "c.safetensors")


def test_timm_training_checkpoint_loads_averaged_weights(model, tmp_path):
    other = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    saved = {
        "arch": "test_resnet",
        "state_dict": other,
        "state_dict_ema": model.state_dict(),
        "args": argparse.Namespace(lr=0.1),
        "epoch": 1,
    }
    torch.save(saved, tmp_path / "last.pth.tar")
    state = read_checkpoint(tmp_path / "last.pth.tar").weights.state
    assert torch.equal(state["fc.weight"], model.state_dict()["fc.weight"])


class Bomb:
    def __reduce__(self):
        return (open, ("/nonexistent/embedpipe", "w"))


def test_pickle_that_needs_code_is_refused_without_running_it(tmp_path):
    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pth", "plain.pth"):
        with pytest.raises(WeightsError, match=r"run code.*safetensors"):
            read_checkpoint(tmp_path / name)


def test_pickled_models_are_refused(model, tmp_path):
    torch.save(model, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="safetensors"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.safetensors", "a.bin"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn"])
def test_files_of_other_formats_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_checkpoint(tmp_path / name)


def test_error_names_missing_files_folders_and_tensors(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match=r"config\.json.* does not exist"):
        read_checkpoint(tmp_path)
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match="must hold tensors by name"):
        read_checkpoint(tmp_path / "empty.pth")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"model.safetensors.* does not exist"):
        read_checkpoint(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="with 'architecture'"):
        read_checkpoint(tmp_path)


def test_checkpoint_needs_an_architecture_without_code(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="set arch='timm/NAME'"):
        load(tmp_path / "a.safetensors")
    save_file(model.state_dict(), tmp_path / "b.safetensors", {"architecture": "python:os.getcwd"})
    with pytest.raises(WeightsError, match="must not"):
        load(tmp_path / "b.safetensors")
    with pytest.raises(UsageError, match="leave out weights"):
        load(tmp_path / "a.safetensors", weights="none", arch="timm/test_resnet")


def test_stored_architecture_of_a_checkpoint_is_no_path_of_this_machine(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"architecture": "test_resnet"})
    spec, weights = load(tmp_path / "a.safetensors").spec, str(tmp_path / "a.safetensors")
    for arch in ("timm/local-dir:/etc/models", "timm/local-dir:models/a", "word-vectors/~/a.txt", "timm//a", "timm/.."):
        with pytest.raises(BackboneError, match="names a path on this machine"):
            options_from_spec(dataclasses.replace(spec, name=arch), weights)
    kept = dataclasses.replace(spec, name="timm/local-dir:test_resnet")  # whose configuration is in the file
    assert options_from_spec(kept, weights).arch == kept.name


def test_error_names_misshapen_missing_and_unexpected_tensors(model, tmp_path):
    state = dict(model.state_dict())
    state["extra.weight"] = torch.zeros(1)
    del state["bn1.weight"]
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"(?s)bn1\.weight.*extra\.weight"):
        load(tmp_path / "a.safetensors", arch="test_resnet")


def test_checkpoint_returns_the_vectors_of_its_network(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"architecture": "test_resnet"})
    backbone = load(tmp_path / "a.safetensors")
    batch = np.random.default_rng(0).integers(0, 256, (3, *backbone.spec.preprocessing.crop, 3), dtype=np.uint8)
    with torch.inference_mode():
        x = normalise(torch.from_numpy(batch), backbone.network.preprocessing)
        expected = model.eval().forward_head(model.forward_features(x), pre_logits=True).numpy()
    np.testing.assert_allclose(backbone.forward(batch)["embedding"], expected, rtol=1e-4, atol=1e-5)


def test_a_fine_tuned_checkpoint_says_how_photos_are_decoded(tmp_path):
    frozen = load_backbone("timm/test_resnet", weights="none", decode="scaled", device="cpu")
    tuned = tmp_path / "tuned.safetensors"
    save_backbone(frozen.network.module.state_dict(), frozen, tuned)
    assert load(tuned).spec.preprocessing == frozen.spec.preprocessing
    assert load(tuned, decode="full").spec.preprocessing.decode == "full"
