"""Boxes, shards and videos on the command line: what is embedded, what fails, and what the run says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import run
from PIL import Image
from video_files import write_video

import embedpipe

BACKBONE = ("--backbone", "python:tiny_backbone.make", "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a picture."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path


def rows_of(store: str) -> list[tuple[object, ...]]:
    """Return id, label and split of each row."""
    rows = embedpipe.FeatureStore(store).to_arrow().to_pylist()
    return [(row["id"], row["label"], row.get("split")) for row in rows]


def test_boxes_of_coco_are_embedded_and_bad_ones_named(folder: Path) -> None:
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 9, 9]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [4, 4, 0, 9]},
    ]
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "test.json").write_text(json.dumps(content | {"annotations": annotations}))
    result = run("embed", "test.json", "--box-margin", "0.1", "--to", "parts.features", *BACKBONE)
    assert result.exit_code == 3
    assert "1 embedded, 0 reused, 1 failed" in result.stdout
    assert "a width and height above 0, got 4, 4, 0, 9 (annotation 2 of 'test.json', picture 'a.png')" in result.output
    assert rows_of("parts.features") == [("a.png#1", "cat", "test")]


def test_shards_of_a_folder_are_embedded_with_splits_and_names(folder: Path) -> None:
    features = {"image": {"_type": "Image"}, "kind": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    image = {"bytes": (folder / "a.png").read_bytes(), "path": None}
    table = pa.table({"image": [image], "kind": [1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / "data").mkdir()
    for split in ("train", "test"):
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    result = run("embed", "data", "--to", "data.features", *BACKBONE)
    assert result.exit_code == 0
    assert "column 'kind' is the label, as it alone holds classes" in result.stdout
    assert rows_of("data.features") == [
        (f"{split}-00000-of-00001/row-00000000", "dog", split) for split in ("test", "train")
    ]


def test_frames_of_videos_are_embedded(folder: Path) -> None:
    pytest.importorskip("av", reason="the extra 'video' is not installed")
    write_video(folder / "clips" / "cat" / "a.mp4", 20)
    result = run("embed", "clips", "--to", "clips.features", *BACKBONE)
    assert result.exit_code == 2
    assert "to embed frames of videos, give --every 1s" in result.stderr
    assert run("embed", "clips", "--every", "1s", "--to", "clips.features", *BACKBONE).exit_code == 0
    assert rows_of("clips.features") == [(f"cat/a.mp4#t={time}", "cat", None) for time in ("0.0", "1.0")]
