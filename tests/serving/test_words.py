"""Search by words on the page: in a store of photos by the backbone's text tower, and in a store of texts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from serving.conftest import Api
from tiny_clip import write_clip

import embedpipe
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing.searching import Searcher
from embedpipe.serving.viewing.viewer import Viewer

#: Describes a store, and searches it by words and by a picture, where torch cannot be imported.
WITHOUT_TORCH = """
import io, json, sys
sys.modules["torch"] = None
from PIL import Image
from starlette.testclient import TestClient
from embedpipe import FeatureStore
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing.searching import Searcher
from embedpipe.serving.viewing.viewer import Viewer

viewer = Viewer(FeatureStore(sys.argv[1]), Searcher(None, ReloadOptions(), ComputeOptions()))
client = TestClient(create_app(viewer), base_url="http://127.0.0.1:8700")
info = client.get("/api/store").json()
picture = io.BytesIO()
Image.new("RGB", (8, 8)).save(picture, "PNG")
answers = [
    client.post("/api/queries/words", params={"key": info["key"]}, json={"words": "a cat"}),
    client.post("/api/queries/picture", params={"key": info["key"]}, content=picture.getvalue()),
]
print(json.dumps([info["words"], info["pictures"], *(answer.json()["error"] for answer in answers)]))
"""


def check(store: embedpipe.FeatureStore, words: str, weights: str = "default") -> Searcher:
    """Compare the page's answers with those of `search`."""
    searcher = Searcher(None, ReloadOptions(weights=weights, trust=True), ComputeOptions(device="cpu"))
    api = Api(create_app(Viewer(store, searcher)))
    answer = api.post("queries/words", json={"words": words})
    assert answer.status_code == 200, answer.text
    rows = api.json("rows", near=f"query:{answer.json()['key']}", count=5)["rows"]
    expected = embedpipe.search(store, [words], k=5, weights=weights, trust=True, device="cpu", progress=False).table
    assert [row["id"] for row in rows] == expected["id"].to_pylist()
    assert [row["score"] for row in rows] == pytest.approx(expected["score"].to_pylist(), abs=1e-9)
    return searcher


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_photos_are_found_by_the_text_tower_alone(tmp_path: Path, make_photos: Callable[..., Path]) -> None:
    pytest.importorskip("open_clip", reason="the extra 'clip' is not installed")
    clip = write_clip(tmp_path / "clip")
    store = embedpipe.embed(make_photos(6), tmp_path / "s", backbone=f"open_clip/local-dir:{clip}", progress=False)
    searcher = check(store, "a photo of a cat", str(clip))
    assert [modality for _, modality in searcher._backbones] == ["text"]


def test_texts_are_found_by_words(tmp_path: Path) -> None:
    texts = ["a red cat", "a blue dog", "green owls at night", "win a prize", "see you later", "cats and dogs"]
    backbone = "python:tiny_text_backbone.make"
    store = embedpipe.embed(texts, tmp_path / "s", backbone=backbone, modality="text", progress=False)
    check(store, "a blue cat")


@pytest.mark.parametrize("modality", ["image", "text"])
def test_imported_store_refuses_queries_without_torch(tmp_path: Path, modality: str) -> None:
    vectors = np.eye(4, dtype=np.float32)
    embedpipe.import_vectors(vectors, tmp_path / "s", ids=[*"abcd"], name="openai/ada", modality=modality)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "s")]
    words, pictures, *errors = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (words, pictures) == (False, False)
    assert all("the vectors were imported, from 'openai/ada'" in error for error in errors)
