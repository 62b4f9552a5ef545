"""Lists of boxes in a column, as data sets of the hub for detection have: each box is an item."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Sequence, Value
from datasets import Image as ImageFeature
from PIL import Image

import embedpipe
from embedpipe.decoding import decode_image
from embedpipe.errors import SourceError
from embedpipe.sources import SourceOptions, open_source, read_uri

WIDTH, HEIGHT = 40, 30
PIXELS = np.stack([*np.mgrid[0:HEIGHT, 0:WIDTH] * 6, np.full((HEIGHT, WIDTH), 9)], axis=2).astype(np.uint8)
OBJECTS = [
    {"id": [5, 6], "bbox": [[1.0, 2.0, 10.0, 5.0], [0.0, 0.0, 40.0, 30.0]], "category": [0, -1]},
    {"id": [7], "bbox": [[3.0, 3.0, 5.0, 5.0]], "category": [1]},
    {"id": [], "bbox": [], "category": []},
]
BOXES = SourceOptions(boxes="objects")
CLASSES = ClassLabel(names=["cat", "dog"])
BOX = List(Value("float32"), length=4)
#: The types that versions of `datasets` give such a column.
KINDS: dict[str, Any] = {
    "struct": {"id": List(Value("int64")), "bbox": List(BOX), "category": List(CLASSES)},
    "sequence": Sequence({"id": Value("int64"), "bbox": BOX, "category": CLASSES}),
    "list": List({"id": Value("int64"), "bbox": BOX, "category": CLASSES}),
}


def as_structs(value: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]


def data_set(kind: str, width: int = WIDTH) -> Dataset:
    features = {
        "image": ImageFeature(), "width": Value("int32"), "height": Value("int32"), "objects": KINDS[kind],
    }  # fmt: skip
    objects = [as_structs(each) for each in OBJECTS] if kind == "list" else OBJECTS
    columns = {"image": [Image.fromarray(PIXELS)] * 3, "width": [width] * 3, "height": [HEIGHT] * 3}
    return Dataset.from_dict(columns | {"objects": objects}, features=Features(features))


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


def table(objects: list[Any], **columns: Any) -> pa.Table:
    return pa.table({"image": [png()] * len(objects), "objects": objects} | columns)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [False, True])
def test_boxes_of_a_data_set_are_items(kind: str, stored: bool, tmp_path: Path) -> None:
    source: Any = data_set(kind)
    if stored:
        source.to_parquet(tmp_path / "train-00000-of-00001.parquet")
        source = tmp_path
    listing = open_source(source, BOXES)
    first, second, third = listing.table.to_pylist()
    assert [row["id"].rpartition("#")[2] for row in (first, second, third)] == ["5", "6", "7"]
    assert [row["label"] for row in (first, second, third)] == ["cat", None, "dog"]
    assert first["picture"] == second["picture"] == first["id"].removesuffix("#5") != third["picture"]
    assert first["width"] == WIDTH
    assert "objects" not in first
    assert np.array_equal(np.asarray(decode_image(listing.read(0))), PIXELS[2:7, 1:11])
    if stored:
        assert first["split"] == "train"
        assert np.array_equal(np.asarray(decode_image(read_uri(third["uri"]))), PIXELS[3:8, 3:8])


def test_pictures_without_boxes_are_counted() -> None:
    listing = open_source(data_set("struct"), BOXES)
    assert listing.skipped == {"pictures without boxes": 1}
    assert (listing.notes, listing.failures) == ((), ())


def test_splits_of_a_data_set_share_a_listing() -> None:
    parts = open_source(DatasetDict(train=data_set("struct"), test=data_set("struct")), BOXES)
    assert parts.table.column("split").to_pylist() == ["train"] * 3 + ["test"] * 3
    assert parts.skipped == {"pictures without boxes": 2}


def test_lists_of_boxes_are_pointed_out() -> None:
    listing = open_source(data_set("struct"))
    assert len(listing) == 3
    assert "column 'objects' has boxes; to embed these parts of the images, give boxes='objects'" in listing.notes[0]


def test_lines_of_json_and_corners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    (tmp_path / "a.png").write_bytes(png())
    line = {"file_name": "a.png", "annotations": {"bboxes": [[10, 5, 14, 8], [1, 1, 2, 2]], "labels": ["cat", "dog"]}}
    (tmp_path / "t.jsonl").write_text(json.dumps(line))
    options: dict[str, Any] = {"boxes": "annotations:xyxy", "backbone": "python:tiny_backbone.make"}
    store = embedpipe.embed(tmp_path / "t.jsonl", tmp_path / "s", **options)
    assert store.ids() == ["a.png#0", "a.png#1"]
    rows = store.to_arrow(columns=["uri", "label"]).to_pylist()
    assert [row["uri"].rpartition("/")[2] for row in rows] == ["a.png#xywh=10,5,4,3", "a.png#xywh=1,1,1,1"]
    assert [row["label"] for row in rows] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"bbox": [[1, 2, 3]], "category": ["cat"]}, "four numbers .left, top, width, height., got .1, 2, 3."),
        ({"bbox": [[1.0, 2.0, 0.0, 4.0]], "category": ["cat"]}, "a width and height above 0"),
        ({"bbox": [], "category": ["cat"]}, "four numbers .*, got None"),
    ],
)
def test_bad_box_is_a_failure_that_names_row_and_box(value: Any, message: str) -> None:
    listing = open_source(table([value]), BOXES)
    ((failure,), count) = listing.failures, len(listing)
    assert count == 0
    assert re.search(message, failure.message)
    assert "(box 1 of row 1, picture 'row-00000000')" in failure.message
    assert failure.id == "row-00000000#0"


def test_picture_of_another_size_fails() -> None:
    listing = open_source(data_set("struct", width=2 * WIDTH), BOXES)
    with pytest.raises(embedpipe.EmbedpipeError, match="must have the 80 x 30 pixels that its boxes were drawn in"):
        decode_image(listing.read(0))


def test_category_without_a_name_is_a_failure(tmp_path: Path) -> None:
    data_set("struct").to_parquet(tmp_path / "t.parquet")
    stored = pa.parquet.read_table(tmp_path / "t.parquet")
    wrong = pa.array([{**each, "category": [9] * len(each["id"])} for each in OBJECTS], stored.schema.field(3).type)
    pa.parquet.write_table(stored.set_column(3, stored.schema.field(3), wrong), tmp_path / "t.parquet")
    failures = open_source(tmp_path / "t.parquet", BOXES).failures
    assert len(failures) == 3
    assert "the category must be a number of the 2 classes, got 9" in failures[0].message


def test_boxes_that_look_like_corners_and_replaced_labels_are_notes() -> None:
    corners = [{"bbox": [[1, 2, 3 + n, 4 + n] for n in range(20)], "category": ["cat"] * 20}]
    notes = open_source(table(corners, label=["whole"]), BOXES).notes
    assert "all look like left, top, right and bottom: if they are, give boxes='objects:xyxy'" in notes[0]
    assert "labels are the categories of 'objects', not those of the images" in notes[1]


def test_column_without_boxes_is_refused() -> None:
    with pytest.raises(SourceError, match=r"'objects' .*must have a field bbox or .* and has area, category"):
        open_source(table([{"area": [1.0], "category": [2]}]), BOXES)
    with pytest.raises(SourceError, match=r"has no column 'things' .*boxes="):
        open_source(table([{"bbox": [[1, 2, 3, 4]]}]), SourceOptions(boxes="things"))
