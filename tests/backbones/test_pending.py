"""Specs of earlier runs: with them, a run without new items loads no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import embedpipe
from embedpipe._utils.cache import find_cache
from embedpipe._utils.checksums import read_json, with_checksum
from embedpipe.backbones import BackboneOptions, load_with_options, resolve_options
from embedpipe.backbones import pending as module
from embedpipe.backbones.pending import PendingBackbone, recall_backbone, remember_backbone
from embedpipe.backbones.registry import BUILT_IN, get_provider, modalities_of
from embedpipe.errors import SpecMismatchError

RANDOM = BackboneOptions("timm/test_resnet", "none")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(load_with_options(RANDOM, "cpu").network.module.state_dict(), path)
    os.utime(path, (1e9, 1e9))
    return path


def recalled(options: BackboneOptions) -> PendingBackbone | None:
    options = resolve_options(options)
    return recall_backbone(options, lambda: load_with_options(options, "cpu"))


def remember(options: BackboneOptions) -> None:
    options = resolve_options(options)
    remember_backbone(options, load_with_options(options, "cpu"))


def test_the_spec_is_known_with_the_notes_and_the_origin_of_the_weights() -> None:
    remember(RANDOM)
    known = recalled(RANDOM)
    backbone = load_with_options(RANDOM, "cpu")
    assert known is not None
    assert (known.spec, known.notes) == (backbone.spec, backbone.notes)
    assert {**known.provenance, "engine": ""} == {**backbone.provenance, "engine": ""}
    assert recalled(BackboneOptions("timm/test_resnet", "none", drop_last=1)) is None


def wait_for_a_later_time(path: Path) -> None:
    """Let the clock of the file system pass the last change of a file."""
    probe = path.with_name("clock")
    while probe.touch() or probe.stat().st_ctime <= path.stat().st_ctime:
        pass


def test_weights_that_changed_are_loaded_again(checkpoint: Path) -> None:
    wait_for_a_later_time(checkpoint)
    options = BackboneOptions("timm/test_resnet", str(checkpoint))
    remember(options)
    assert recalled(options) is not None
    info, data = checkpoint.stat(), checkpoint.read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    checkpoint.write_bytes(changed)
    os.utime(checkpoint, ns=(info.st_atime_ns, info.st_mtime_ns))  # with the size and the time of before
    assert recalled(options) is None
    checkpoint.write_bytes(data)
    assert recalled(options) is not None
    checkpoint.unlink()
    assert recalled(options) is None


def test_a_file_that_changes_while_it_is_loaded_is_not_noted(checkpoint: Path) -> None:
    options = resolve_options(BackboneOptions("timm/test_resnet", str(checkpoint)))
    wait_for_a_later_time(checkpoint)
    backbone = load_with_options(options, "cpu")
    os.utime(checkpoint)
    remember_backbone(options, backbone)
    assert recalled(options) is None


def test_a_folder_stands_for_the_names_and_bytes_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    digests = {module._digest(folder)}
    (folder / "1_Pooling" / "config.json").write_text("{}")
    digests.add(module._digest(folder))
    (folder / "config.json").write_text("{ }")
    digests.add(module._digest(folder))
    assert len(digests) == 3


@pytest.mark.parametrize("change", ["damaged", "no object", "another version", "a missing package", "other code"])
def test_entries_that_do_not_count(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(RANDOM)
    folder = find_cache("specs")
    assert folder is not None
    (entry,) = folder.iterdir()
    if change == "damaged":
        entry.write_text(entry.read_text().replace("test_resnet", "test_resnes"))
    elif change == "no object":
        entry.write_text("[]")
    elif change == "another version":
        monkeypatch.setattr(module.importlib.metadata, "version", lambda name: "0.1")
    elif change == "a missing package":
        entry.write_text(json.dumps(with_checksum({**read_json(entry), "versions": {"not-installed": "1.0"}})))
    else:
        monkeypatch.setattr(module, "_code", lambda: "other")
    assert recalled(RANDOM) is None


def test_code_of_the_user_is_always_loaded() -> None:
    options = BackboneOptions("python:tiny_backbone.make")
    remember(options)
    assert recalled(options) is None


def test_modalities_are_known_without_importing_a_provider() -> None:
    by_name = set(BUILT_IN) - {"transformers", "sentence-transformers"}  # whose models' files decide
    assert by_name == {name for name in by_name if modalities_of(f"{name}/x")}
    assert not [name for name in BUILT_IN if hasattr(get_provider(name), "modalities")]


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)).save(path)


def test_a_run_without_new_items_loads_no_network(tmp_path: Path, checkpoint: Path) -> None:
    for i in range(2):
        photo(tmp_path / "photos" / f"{i}.png", i)
    wait_for_a_later_time(checkpoint)
    source, to = str(tmp_path / "photos"), str(tmp_path / "store")
    chosen = {"backbone": "timm/test_resnet", "weights": str(checkpoint), "device": "cpu"}
    embedpipe.embed(source, to, **chosen)
    again = embedpipe.embed(source, to, **chosen).summary
    assert (again.reused, again.device, again.batch_size) == (2, "", 0)
    photo(tmp_path / "photos" / "2.png", 2)
    assert embedpipe.embed(source, to, **chosen).summary.embedded == 1
    changed = load_with_options(RANDOM, "cpu").network.module.state_dict()
    torch.save({name: tensor + 1 for name, tensor in changed.items()}, checkpoint)
    with pytest.raises(SpecMismatchError, match="weights_sha256"):
        embedpipe.embed(source, to, **chosen)


def test_a_photo_that_stays_broken_loads_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "photos" / "0.png", 0)
    broken = tmp_path / "photos" / "1.png"
    broken.write_bytes(b"\x89PNG, and no more")
    source, to = str(tmp_path / "photos"), str(tmp_path / "store")
    chosen = {"backbone": "timm/test_resnet", "weights": "none", "device": "cpu"}
    first = embedpipe.embed(source, to, **chosen).failures().to_pylist()
    with monkeypatch.context() as patched:
        patched.setattr("embedpipe.backbones.load.load_with_options", None)
        again = embedpipe.embed(source, to, **chosen)
    summary = again.summary
    assert (summary.reused, summary.failed, summary.failed_new, summary.batch_size) == (1, 1, 0, 0)
    assert [row | {"when": None} for row in again.failures().to_pylist()] == [row | {"when": None} for row in first]
    photo(broken, 1)
    assert embedpipe.embed(source, to, **chosen).summary.embedded == 1


WITHOUT_TORCH = """
import sys
from embedpipe.cli import app
try:
    app(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    print("code", end.code)
print("loaded", *sorted({"torch", "timm", "sklearn"} & {*sys.modules}))  # pyarrow imports pandas where it is installed
"""


@pytest.mark.long
def test_commands_that_need_no_network_import_no_torch(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "0.png", 0)
    embed = ["embed", "photos", "--to", "store", "--backbone", "timm/test_resnet", "--weights", "none"]

    def run(*arguments: str) -> str:
        script = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
        return subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "torch" in run(*embed).splitlines()[-1]
    for arguments in (embed, [*embed[:1], "photoss", *embed[2:]], ["search", "store", "a red boat"]):
        assert run(*arguments).splitlines()[-1] == "loaded"
