"""Models of hub repositories and folders: ``hf-hub:ORG/NAME``, ``local-dir:FOLDER``, and their pinned revisions."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hub_server import Hub, commit_of, serve_hub
from PIL import Image
from timm.models import save_for_hf
from tiny_clip import config, write_clip
from tiny_vision import save_vision

import embedpipe
from embedpipe.backbones import load as loading
from embedpipe.backbones import load_backbone, load_with_options, options_from_spec
from embedpipe.backbones.weights.download import fetch_repository
from embedpipe.errors import BackboneError, SpecMismatchError, UnknownBackboneError, UsageError, WeightsError

CLOTHING = Path(__file__).parents[2].parent / "shared" / "data" / "clothing"


def load(name: str, **options: Any) -> Any:
    return load_backbone(name, device="cpu", **options)


def save_timm(folder: Path, architecture: str = "test_vit3", **options: Any) -> None:
    """Save a model with random weights and a recipe of its own as timm's ``save_for_hf`` does."""
    torch.manual_seed(2)
    model = timm.create_model(architecture, num_classes=0, **options)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "crop_pct": 0.9, "num_classes": 0}
    save_for_hf(model, folder, safe_serialization=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model of each library, and an empty cache."""
    from huggingface_hub import constants

    root = tmp_path / "served"
    save_timm(root / "lab/cells", img_size=64)
    write_clip(root / "lab/clip", config({"layers": 1}, {"layers": 1}))
    save_vision(root / "lab/dino", "dinov2")
    (root / "lab/cells/README.md").write_text("first")
    monkeypatch.setattr("embedpipe.backbones.load._cache", OrderedDict())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve_hub(root) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("{repo_id}")
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}/{''.join(template[1:])}")
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", hub.address)
        yield hub


def clothing(count: int) -> list[Path]:
    paths = sorted(CLOTHING.rglob("*.jpg"))
    if not paths:
        pytest.skip(f"no photos in {CLOTHING}")
    return paths[:: len(paths) // count][:count]


def test_timm_folder_gives_timms_pixels_and_vectors(tmp_path: Path) -> None:
    save_timm(tmp_path / "cells", img_size=64)
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'cells'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    backbone = load(f"timm/local-dir:{tmp_path / 'cells'}")
    items, expected = [], []
    for path in clothing(8):
        pixels = transform(Image.open(path).convert("RGB"))
        with torch.inference_mode():
            expected.append(model.forward_head(model.forward_features(pixels[None]), pre_logits=True)[0])
        items.append(backbone.prepare(path.read_bytes()).value)
        levels = (pixels * torch.tensor(model.pretrained_cfg["std"]).view(3, 1, 1)).permute(1, 2, 0).numpy()
        assert np.abs((levels + np.array([0.1, 0.2, 0.3])) * 255 - items[-1]).mean() < 0.01
    vectors = torch.from_numpy(backbone.forward(items)["embedding"])
    assert torch.cosine_similarity(vectors, torch.stack(expected)).min() >= 0.9999
    assert backbone.spec.name == "local-dir:test_vit3"
    assert backbone.spec.preprocessing.crop == (64, 64)


def test_spec_of_a_folder_does_not_depend_on_its_place(tmp_path: Path) -> None:
    save_timm(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, other = (load(f"timm/local-dir:{tmp_path / name}").spec for name in ("one", "two"))
    assert first == other
    for trust in (False, True):  # the folder is not known, so trust is of no use
        with pytest.raises(BackboneError, match=r"in a folder .*, whose place no spec keeps.*weights='FOLDER'"):
            options_from_spec(first, trust=trust)
    assert load_with_options(options_from_spec(first, str(tmp_path / "two")), "cpu").spec == first
    file = tmp_path / "two/config.json"
    settings = json.loads(file.read_text())
    settings["model_args"] = {**settings.get("model_args", {}), "qk_norm": False, "act_layer": "relu"}
    file.write_text(json.dumps(settings))
    assert list(first.diff(load(f"timm/local-dir:{tmp_path / 'two'}").spec)) == ["config_sha256"]


@pytest.mark.parametrize("name", ["timm/hf-hub:lab/cells", "open_clip/hf-hub:lab/clip", "transformers/lab/dino"])
def test_hub_repository_is_pinned_to_its_commit(name: str, hub: Hub) -> None:
    if name.startswith("open_clip") and find_spec("open_clip") is None:
        pytest.skip("the extra 'clip' is not installed")
    repository = name.rpartition(":")[2].removeprefix("transformers/")
    commit = commit_of(hub.root / repository)
    spec = load(name).spec
    assert f"{spec.provider}/{spec.name}" == f"{name}@{commit}"
    assert spec.title == f"{name}@{commit[:7]}"
    assert spec.config_sha256

    (hub.root / repository / "README.md").write_text("second")
    asked = len(hub.requests)
    loading._cache.clear()
    for again in (name, f"{name}@{commit}"):
        assert load(again, offline=True).spec == spec
    assert load_with_options(options_from_spec(spec), "cpu").spec == spec
    assert len(hub.requests) == asked  # all is in the cache
    tagged = load(f"{name}@v2").spec
    assert list(spec.diff(tagged)) == ["name"]
    assert tagged.name.endswith(f"@{commit_of(hub.root / repository)}")


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_hub_and_folder_have_the_same_vectors_and_need_no_weights_at_random(library: str, hub: Hub) -> None:
    pytest.importorskip(library)
    repository = {"timm": "lab/cells", "open_clip": "lab/clip"}[library]
    folder = hub.root / repository
    remote = load(f"{library}/hf-hub:{repository}")
    item = remote.prepare(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).value
    for local in (
        load(f"{library}/local-dir:{folder}"),
        load(f"{library}/{remote.spec.name}", weights=str(folder), offline=True),
    ):
        np.testing.assert_array_equal(local.forward([item])["embedding"], remote.forward([item])["embedding"])
        assert local.spec.weights_sha256 == remote.spec.weights_sha256
    assert local.spec == remote.spec
    for file in folder.glob("*model*"):
        file.unlink()
    assert not load(f"{library}/hf-hub:{repository}@other", weights="none").spec.pretrained


def test_words_find_images_of_a_hub_model(hub: Hub, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    store = embedpipe.embed(photos, tmp_path / "store", backbone="open_clip/hf-hub:lab/clip", device="cpu")
    assert embedpipe.search(store, "a dog", k=3).table.num_rows == 3
    options = {"backbone": "open_clip/hf-hub:lab/clip", "device": "cpu"}
    store = embedpipe.embed(photos, tmp_path / "tokens", **options, pooling="cls")
    with pytest.raises(UsageError, match="cannot be searched by words with pooling='cls'"):
        embedpipe.search(store, "a dog")


@pytest.mark.parametrize(
    ("library", "file"),
    [
        ("timm", "config.json"),
        ("timm", "model.safetensors"),
        ("open_clip", "open_clip_config.json"),
        ("open_clip", "open_clip_model.safetensors"),
    ],
)
def test_missing_file_is_named(library: str, file: str, hub: Hub) -> None:
    pytest.importorskip(library)
    repository = {"timm": "lab/cells", "open_clip": "lab/clip"}[library]
    with pytest.raises(WeightsError, match=rf"config\.json.*hub repository '{repository}"):
        load(f"{library}/hf-hub:{repository}", offline=True)
    (hub.root / repository / file).unlink()
    with pytest.raises(WeightsError, match=rf"{file}.*hub repository '{repository}"):
        load(f"{library}/hf-hub:{repository}")
    with pytest.raises(WeightsError, match=rf"{file}"):
        load(f"{library}/local-dir:{hub.root / repository}")


def test_advice_offline_can_be_followed(hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"'config\.json' and the other files .* into a folder") as caught:
        load("timm/hf-hub:lab/cells", weights="none", offline=True)
    assert "none" not in str(caught.value)  # random weights need the configuration too
    with pytest.raises(WeightsError, match=r"folder of the hub repository 'lab/dino'.*weights='PATH'$"):
        load("transformers/lab/dino", offline=True)
    for missing in ("./dino", "/models/dino"):
        with pytest.raises(WeightsError, match=f"^there is no folder '{missing}', and a hub repository must be ORG/"):
            load(f"transformers/{missing}", offline=True)


def test_what_the_hub_refuses_is_reported(hub: Hub) -> None:
    hub.gated.add("lab/cells")
    for name in ("timm/hf-hub:lab/cells", "transformers/lab/cells"):
        with pytest.raises(WeightsError, match=r"is gated: accept its conditions.*HF_TOKEN"):
            load(name)
    with pytest.raises(WeightsError, match="'lab/absent'"):
        load("timm/hf-hub:lab/absent")
    with pytest.raises(WeightsError, match="must be ORG/NAME or ORG/NAME@REVISION, got 'a/b/c'"):
        load("timm/hf-hub:a/b/c")


def test_configurations_of_other_kinds_are_refused(tmp_path: Path) -> None:
    save_timm(tmp_path / "cells")
    file = tmp_path / "cells/config.json"
    settings = json.loads(file.read_text())
    for changes, error, message in (
        ({"architecture": "vit_of_tomorrow"}, UnknownBackboneError, "'vit_of_tomorrow', which timm .* does not have"),
        ({"model_args": {"colour": 1}}, WeightsError, "unexpected keyword argument 'colour'"),
        ({"pretrained_cfg": {"input_size": [4, 96, 96]}}, WeightsError, "images of 3 channels, got 4"),
    ):
        file.write_text(json.dumps({**settings, **changes}))
        with pytest.raises(error, match=message):
            load(f"timm/local-dir:{tmp_path / 'cells'}")
    save_vision(tmp_path / "dino", "dinov2")
    with pytest.raises(WeightsError, match=r"one of transformers: use transformers/"):
        load(f"timm/local-dir:{tmp_path / 'dino'}")


def test_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    save_timm(tmp_path / "cells")
    (tmp_path / "cells/model.safetensors").unlink()
    torch.save({"model": print}, tmp_path / "cells/pytorch_model.bin")
    with pytest.raises(WeightsError, match="run code"):
        load(f"timm/local-dir:{tmp_path / 'cells'}")


def test_another_revision_does_not_match_a_store(hub: Hub, photos: Path, tmp_path: Path) -> None:
    embedpipe.embed(photos, tmp_path / "store", backbone="timm/hf-hub:lab/cells", device="cpu")
    same = embedpipe.embed(photos, tmp_path / "store", backbone="timm/hf-hub:lab/cells", device="cpu", offline=True)
    assert same.summary.reused == 12
    save_timm(hub.root / "lab/cells", img_size=32)
    with pytest.raises(SpecMismatchError, match="lab/cells@"):
        embedpipe.embed(photos, tmp_path / "store", backbone="timm/hf-hub:lab/cells@new", device="cpu")


@pytest.mark.parametrize("present", ["config.json", "a shard"])
def test_part_of_a_repository_in_the_cache_is_completed(present: str, hub: Hub) -> None:
    from huggingface_hub import constants, hf_hub_download

    name, served = "lab/dino", hub.root / "lab/dino"
    hf_hub_download(name, "config.json")  # as AutoConfig does
    if present == "a shard":
        index = {"weight_map": {"a": "model-1.safetensors", "b": "model.safetensors"}}
        (served / "model.safetensors.index.json").write_text(json.dumps(index))
        shutil.copyfile(served / "model.safetensors", served / "model-1.safetensors")
        for file in ("model.safetensors.index.json", "model-1.safetensors"):
            hf_hub_download(name, file)
    folder = fetch_repository(name, offline=False)
    assert {path.name for path in folder.iterdir()} == {path.name for path in served.iterdir()}
    (folder / "model.safetensors").unlink()
    shutil.rmtree(Path(constants.HF_HUB_CACHE) / "models--lab--dino/trees", ignore_errors=True)
    with pytest.raises(WeightsError, match="are not on this machine"):
        fetch_repository(name, offline=True)
