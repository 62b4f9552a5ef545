"""Published weights: from the caches, from a server, or an error within seconds that names the file."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from embedpipe.backbones import load_backbone
from embedpipe.backbones.weights.download import fetch_from_hub, fetch_from_url, fetch_repository
from embedpipe.errors import WeightsError

CLOSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", CLOSED)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def served(tmp_path):
    """A folder and the address of a server that serves it, as the hub does."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def end_headers(self):
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", '"' + "b" * 40 + '"')
            super().end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("timm/resnet18", "'model.safetensors' of the hub repository 'timm/resnet18.a1_in1k'"),
        ("timm/resnet50.a1_in1k", "'model.safetensors' of the hub repository 'timm/resnet50.a1_in1k'"),
        ("torchvision/resnet18", r"'resnet18-\w+\.pth'"),
        ("timm/legacy_xception", r"'xception-\w+\.pth'"),
    ],
)
def test_without_a_connection_the_error_comes_soon_and_names_the_file(monkeypatch, name, wanted, offline):
    if not offline:
        monkeypatch.setattr("torchvision.models.ResNet18_Weights.DEFAULT.value.url", f"{CLOSED}/resnet18-f37072fd.pth")
        monkeypatch.setattr("embedpipe.backbones.providers.timm.provider.fetch_from_url", fetch_from_closed)
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=wanted) as caught:
        load_backbone(name, offline=offline, device="cpu")
    assert time.perf_counter() - start < 10
    assert "weights='PATH'" in str(caught.value)
    assert ("offline" if offline else "no network") in str(caught.value)
    assert "http" not in str(caught.value)


def fetch_from_closed(url, offline):
    return fetch_from_url(f"{CLOSED}/{url.rpartition('/')[2]}", offline)


def test_offline_variable_of_the_hub_forbids_downloads(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="forbids downloads"):
        fetch_from_hub("timm/resnet18.a1_in1k", ["model.safetensors"], offline=False)


def test_file_is_downloaded_once_and_checked_by_its_hash(served):
    folder, address = served
    content = b"some weights"
    digest = hashlib.sha256(content).hexdigest()[:8]
    (folder / f"good-{digest}.pth").write_bytes(content)
    (folder / "bad-00000000.pth").write_bytes(content)
    path = fetch_from_url(f"{address}/good-{digest}.pth", offline=False)
    assert path.read_bytes() == content
    assert fetch_from_url(f"{CLOSED}/good-{digest}.pth", offline=True) == path
    with pytest.raises(WeightsError, match="bad-00000000"):
        fetch_from_url(f"{address}/bad-00000000.pth", offline=False)
    with pytest.raises(WeightsError, match="absent"):
        fetch_from_url(f"{address}/absent.pth", offline=False)
    assert not list(path.parent.glob("bad*"))


def test_damaged_files_in_the_caches_are_refused(tmp_path):
    content = bytearray(b"some weights")
    digest = hashlib.sha256(content).hexdigest()
    in_torch = tmp_path / f"torch/hub/checkpoints/good-{digest[:8]}.pth"
    model = tmp_path / "hub/models--some--model"
    blob, snapshot = model / "blobs" / digest, model / "snapshots" / ("a" * 40)
    for file in (in_torch, blob, snapshot / "model.safetensors", model / "refs/main"):
        file.parent.mkdir(parents=True, exist_ok=True)
    (model / "refs/main").write_text("a" * 40)
    (snapshot / "model.safetensors").symlink_to(blob)
    readers = (
        lambda: fetch_from_url(f"{CLOSED}/{in_torch.name}", offline=True),
        lambda: fetch_from_hub("some/model", ["model.safetensors"], offline=True),
        lambda: fetch_repository("some/model", offline=True),
    )
    for file in (in_torch, blob):
        file.write_bytes(content)
    for read in readers:
        assert read().exists()
    content[3] ^= 1
    for file in (in_torch, blob):
        file.write_bytes(content)
    for read in readers:
        with pytest.raises(WeightsError, match=r"must have the SHA-256 \w+.*Delete it"):
            read()


SCRIPT = """
import sys
from embedpipe import load_backbone
offline = sys.argv[2] == "offline"
backbone = load_backbone("timm/test_resnet", weights=sys.argv[1], offline=offline, device="cpu")
print(backbone.spec.fingerprint(), backbone.spec.pretrained, backbone.provenance["weights"])
"""


@pytest.mark.long
def test_timm_weights_come_from_the_hub_and_then_from_its_cache(served, tmp_path):
    folder, address = served
    repository = folder / "timm" / "test_resnet.r160_in1k" / "resolve" / "main"
    repository.mkdir(parents=True)
    torch.manual_seed(1)
    file = repository / "model.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)

    def run(endpoint, weights="default", offline="online"):
        environment = {
            **os.environ,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-c", SCRIPT, weights, offline]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.split(maxsplit=2)

    fingerprint, pretrained, origin = run(address)
    assert (pretrained, origin.strip()) == ("True", "the hub, timm/test_resnet.r160_in1k")
    assert run(CLOSED, offline="offline")[0] == fingerprint
    assert run(CLOSED, weights=str(file))[0] == fingerprint
