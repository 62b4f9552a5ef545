"""Parts of pictures as items: COCO files, folders of YOLO, and tables with boxes."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from closed import closed
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import embedpipe
from embedpipe.decoding import Preprocessing, decode_image, decode_pixels, payload_hash
from embedpipe.errors import DecodeError, ReadError, SourceError, UsageError
from embedpipe.report.links import link_to
from embedpipe.serving.viewing.collection import Collection
from embedpipe.serving.viewing.pictures import Pictures
from embedpipe.sources import SourceOptions, open_source, read_uri
from embedpipe.sources.boxes import Box, Crop, split_box

WIDTH, HEIGHT = 40, 30
#: Every pixel differs from all others.
PIXELS = np.stack([*np.mgrid[0:HEIGHT, 0:WIDTH] * 6, np.full((HEIGHT, WIDTH), 9)], axis=2).astype(np.uint8)


def save(path: Path, pixels: Any = PIXELS, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def pixels_of(payload: Any) -> Any:
    """Return the pixels of a payload, which both decoders agree on."""
    pixels = np.asarray(decode_image(payload))
    picture = decode_pixels(payload, Preprocessing())
    assert np.array_equal(picture.upright(picture.pixels), pixels)
    return pixels


def coco(folder: Path, *boxes: Any, **changes: Any) -> Path:
    """Write a COCO file beside a picture, with boxes or whole annotations of it."""
    save(folder / "images" / "a.png")
    annotations = [
        {"id": 10 + number, "image_id": 1, "category_id": 7, "bbox": box} if isinstance(box, list) else box
        for number, box in enumerate(boxes)
    ]
    content = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "empty.png", "width": 4, "height": 4},
        ],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": annotations,
    }
    path = folder / "instances_val2017.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_boxes_of_coco_are_items_with_the_pixels_of_the_box(tmp_path: Path) -> None:
    listing = open_source(coco(tmp_path, [10, 5, 4, 3], [0, 0, 40, 30]))
    first, second = listing.table.to_pylist()
    assert first["id"] == "a.png#10"
    assert first["uri"] == f"{tmp_path}/images/a.png#xywh=10,5,4,3&of=40x30"
    assert (first["label"], first["split"], first["picture"]) == ("cat", "validation", "a.png")
    assert first["source_modified"] == (tmp_path / "images" / "a.png").stat().st_mtime_ns
    assert np.array_equal(pixels_of(listing.read(0)), PIXELS[5:8, 10:14])
    assert np.array_equal(pixels_of(read_uri(second["uri"])), PIXELS)
    assert listing.skipped == {"pictures without boxes": 1}
    assert link_to(first["uri"]) == (tmp_path / "images" / "a.png").as_uri()
    part = pickle.loads(pickle.dumps(listing.take(np.array([1, 0]))))
    assert np.array_equal(pixels_of(part.read(1)), PIXELS[5:8, 10:14])


def test_the_box_and_the_margin_decide_the_content(tmp_path: Path) -> None:
    path = coco(tmp_path, [10, 5, 4, 2], [10, 5, 4, 3])
    plain, wide = open_source(path), open_source(path, SourceOptions(box_margin=0.5))
    assert np.array_equal(pixels_of(wide.read(0)), PIXELS[4:8, 8:16])
    hashes = {payload_hash(listing.read(row)) for listing in (plain, wide) for row in (0, 1)}
    assert len(hashes) == 4
    assert plain.table.column("id").to_pylist() == wide.table.column("id").to_pylist()
    assert payload_hash(read_uri(wide.table.column("uri")[0].as_py())) in hashes
    with pytest.raises(UsageError, match=r"box_margin must be in 0\.\.10, got -1"):
        SourceOptions(box_margin=-1)
    with pytest.raises(SourceError, match=r"box_margin is for boxes, and .* has none"):
        open_source(tmp_path / "images", SourceOptions(box_margin=0.1))
    with pytest.raises(SourceError, match=r"boxes is for tables, and .* has none"):
        open_source(tmp_path / "images", SourceOptions(boxes="x,y,w,h"))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([10, 5, 0, 3], "a width and height above 0, got 10, 5, 0, 3"),
        ([10, 5, 4, -3], "a width and height above 0"),
        ([10, 5, float("nan"), 3], "finite numbers"),
        ([10, 5, float("inf"), 3], "finite numbers"),
        ([10, 5, 10**400, 3], "bbox must be four finite numbers"),
        ([10, 5, 4], "bbox must be four numbers"),
        (["a", 5, 4, 3], "bbox must be four numbers"),
        (
            {"id": 10, "image_id": 1, "category_id": 8, "bbox": [1, 1, 1, 1]},
            "category_id must be one of the file, got 8",
        ),
        ({"id": 10, "image_id": 1, "category_id": 7}, "bbox must be four numbers"),
    ],
)
def test_a_bad_box_is_a_failure_that_names_file_and_box(box: Any, message: str, tmp_path: Path) -> None:
    listing = open_source(coco(tmp_path, box, [1, 1, 2, 2]))
    assert len(listing) == 1
    (failure,) = listing.failures
    assert message in failure.message
    assert "annotation 10 of 'instances_val2017.json', picture 'a.png'" in failure.message


@pytest.mark.parametrize("box", [[40, 0, 5, 5], [-5, 0, 5, 5], [0, 30, 5, 5], [0, -9, 5, 5]])
def test_a_box_outside_of_its_picture_fails_when_it_is_decoded(box: list[int], tmp_path: Path) -> None:
    payload = open_source(coco(tmp_path, box), SourceOptions(box_margin=2)).read(0)
    for decode in (decode_image, pixels_of):
        with pytest.raises(DecodeError, match=r"lies outside of its picture of 40 x 30"):
            decode(payload)


def test_a_box_beyond_the_edge_ends_there(tmp_path: Path) -> None:
    listing = open_source(coco(tmp_path, [35, 25, 50, 50]))
    assert np.array_equal(pixels_of(listing.read(0)), PIXELS[25:, 35:])


def test_boxes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = coco(tmp_path, [3, 10, 6, 20])
    save(tmp_path / "images" / "a.png", exif=exif)
    payload = open_source(path).read(0)
    with pytest.raises(DecodeError, match=r"must have the 40 x 30 pixels .* and is 30 x 40: it was scaled or turned"):
        decode_image(payload)
    content = json.loads(path.read_text())
    content["images"][0] |= {"width": HEIGHT, "height": WIDTH}
    path.write_text(json.dumps(content))
    upright = np.rot90(PIXELS, -1)
    assert np.array_equal(pixels_of(open_source(path).read(0)), upright[10:30, 3:9])


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "https://example.org/a.png", "../secret.png"])
def test_coco_names_no_pictures_elsewhere(name: str, tmp_path: Path) -> None:
    save(tmp_path / "secret.png")
    images = [{"id": 1, "file_name": name}]
    path = coco(tmp_path / "data", [1, 1, 2, 2], images=images)
    with pytest.raises(SourceError, match=r"none of the files .* may be read"):
        open_source(path)
    path = coco(tmp_path / "data", [1, 1, 2, 2], [1, 1, 3, 3], images=[*images, {"id": 2, "file_name": "a.png"}])
    with pytest.raises(ReadError, match="nothing else is read"):
        open_source(path).read(0)


def test_pictures_of_coco_are_found_below_an_allowed_folder(tmp_path: Path) -> None:
    path = coco(tmp_path, [10, 5, 4, 3])
    (tmp_path / "annotations").mkdir()
    path = path.rename(tmp_path / "annotations" / path.name)
    (tmp_path / "images").rename(tmp_path / "val2017")
    listing = open_source(path, SourceOptions(allow_root=(str(tmp_path),)))
    assert np.array_equal(pixels_of(listing.read(0)), PIXELS[5:8, 10:14])
    with pytest.raises(ReadError, match="no such file"):
        open_source(path).read(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 3}, "must be a COCO file"),
        ({"images": [3]}, "every image .* must be an object, got 3"),
        ({"annotations": [0]}, "every annotation .* must be an object"),
        ({"images": [{"id": 1}, {"id": 1}]}, "ids of the images .* must be unique, and 1 are repeated"),
        ({"images": [{"id": [1], "file_name": "a.png"}]}, "id must be an integer or a text"),
        ({"images": [{"id": 3, "file_name": "a.png"}]}, "must be of an image of the file, got 1"),
        ({"categories": [{"id": 7}]}, "name must be an integer or a text, and {'id': 7} of .* has None"),
    ],
)
def test_files_that_are_not_coco_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(coco(tmp_path, [1, 1, 2, 2], **changes))


def test_half_characters_of_ids_and_names_are_escaped(tmp_path: Path) -> None:
    box = {"id": "\ud800", "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]}
    table = open_source(coco(tmp_path, box, categories=[{"id": 7, "name": "\udfff"}])).table
    assert table.select(["id", "label"]).to_pylist() == [{"id": "a.png#\\ud800", "label": "\\udfff"}]


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", ""])
def test_damaged_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"cannot read|must be a COCO file"):
        open_source(path)


def yolo(folder: Path, labels: str, names: str = "names: [cat, dog]\n") -> Path:
    save(folder / "images" / "train" / "a.png")
    save(folder / "images" / "val" / "b.png")
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text(labels)
    (folder / "data.yaml").write_text("path: /etc\ntrain: ../../../images\n" + names)
    return folder


def test_lines_of_yolo_are_items(tmp_path: Path) -> None:
    listing = open_source(yolo(tmp_path, "1 0.3 0.5 0.1 0.2\n\n0 0.25 0.2 0.5 0.2 0.5 0.6\n1 0.3 0.5 0.1 0.2\n"))
    rows = listing.table.to_pylist()
    assert [row["label"] for row in rows] == ["dog", "cat", "dog"]
    assert rows[0]["id"] == "images/train/a.png#xywh=percent:25,40,10,20"
    assert rows[2]["id"] == f"{rows[0]['id']}#2"
    assert (rows[0]["split"], rows[0]["picture"]) == ("train", "images/train/a.png")
    assert np.array_equal(pixels_of(listing.read(0)), PIXELS[12:18, 10:14])
    assert np.array_equal(pixels_of(read_uri(rows[1]["uri"])), PIXELS[6:18, 10:20])
    assert listing.skipped == {"pictures without boxes": 1}
    assert open_source(tmp_path / "data.yaml").table.equals(listing.table)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "must be CLASS X Y WIDTH HEIGHT or a polygon, got '0 0.5 0.5 0.1'"),
        ("cat 0.5 0.5 0.1 0.1", "must be CLASS X Y WIDTH HEIGHT"),
        ("2 0.5 0.5 0.1 0.1", "the class must be one of the 2 in data.yaml, got 2"),
        ("nan 0.5 0.5 0.1 0.1", "the class must be one of"),
        ("0 0.5 0.5 0 0.1", "a width and height above 0"),
        ("0 0.5 nan 0.1 0.1", "finite numbers"),
    ],
)
def test_bad_lines_of_yolo_are_failures(line: str, message: str, tmp_path: Path) -> None:
    listing = open_source(yolo(tmp_path, f"1 0.3 0.5 0.1 0.2\n{line}\n"))
    (failure,) = listing.failures
    assert message in failure.message
    assert "(line 2 of labels/train/a.txt, picture 'images/train/a.png')" in failure.message
    assert len(listing) == 1


def test_files_of_yolo_that_are_not_texts_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = yolo(tmp_path, "1 0.3 0.5 0.1 0.2\n")
    (folder / "labels" / "val").mkdir()
    (folder / "labels" / "val" / "b.txt").symlink_to("/dev/zero")
    assert open_source(folder).skipped == {"pictures without boxes": 1}
    (folder / "labels" / "train" / "a.txt").write_bytes(b"\xff\xfe")
    (failure,) = open_source(folder).failures
    assert "cannot read the labels" in failure.message
    (folder / "labels" / "train" / "a.txt").write_text("1 0.3 0.5 0.1 0.2\n" * 60_000)
    (failure,) = open_source(folder).failures
    assert "at most 1,048,576 bytes" in failure.message


@pytest.mark.parametrize("name", ["images", "labels"])
def test_closed_folder_of_yolo_is_named(tmp_path: Path, name: str) -> None:
    folder = yolo(tmp_path, "1 0.3 0.5 0.1 0.2\n")
    with closed(folder / name), pytest.raises(SourceError, match=rf"cannot list the folder .*/{name}'"):
        open_source(folder)


def test_names_of_yolo(tmp_path: Path) -> None:
    listing = open_source(yolo(tmp_path / "a", "5 0.5 0.5 0.1 0.1", "names: {5: bird}\n"))
    assert listing.table.column("label").to_pylist() == ["bird"]
    for number, names in enumerate(
        ["nc: 2\n", "names: 3\n", "names: [[a]]\n", "names: !!python/object:os.system {}\n"]
    ):
        with pytest.raises(SourceError, match=r"names of classes|cannot read"):
            open_source(yolo(tmp_path / str(number), "0 0.5 0.5 0.1 0.1", names))


TABLE = {"path": ["a.png", "a.png"], "x": [10, 0.0], "y": [5, 0], "w": [4, 2], "h": [3, 2], "age": [1, 2]}
BOXES = SourceOptions(boxes="x,y,w,h")


def test_a_table_with_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    listing = open_source(pa.table(TABLE), BOXES)
    assert listing.table.column("id").to_pylist() == ["a.png#xywh=10,5,4,3", "a.png#xywh=0,0,2,2"]
    assert listing.table.column("picture").to_pylist() == ["a.png"] * 2
    assert listing.table.column("age").to_pylist() == [1, 2]
    assert np.array_equal(pixels_of(listing.read(0)), PIXELS[5:8, 10:14])
    named = open_source(pa.table(TABLE | {"id": ["one", "two"]}), BOXES)
    assert named.table.column("id").to_pylist() == ["one", "two"]
    assert named.table.column("picture").to_pylist() == ["a.png"] * 2
    bad = open_source(pa.table(TABLE | {"w": [0, None]}), BOXES)
    assert [failure.message.partition(", got")[0] for failure in bad.failures] == [
        "a box must have finite numbers, and a width and height above 0"
    ] * 2
    assert "(row 2, picture 'a.png')" in bad.failures[1].message


def test_columns_of_a_box_are_pointed_out() -> None:
    columns = dict(zip(["path", "x", "y", "width", "height"], [["a.png"], [1], [1], [2], [2]], strict=True))
    (note,) = open_source(pa.table(columns)).notes
    assert "to embed these parts of the images, give boxes='x,y,width,height'" in note
    assert len(open_source(pa.table(columns), SourceOptions(boxes="x,y,width,height")).notes) == 0


def test_boxes_of_images_in_the_table_itself(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    table = pa.table({"image": [data] * 2} | {name: TABLE[name] for name in "xywh"})
    listing = open_source(table, BOXES)
    assert np.array_equal(pixels_of(listing.read(1)), PIXELS[:2, :2])
    pa.parquet.write_table(table, tmp_path / "t.parquet")
    stored = open_source(tmp_path / "t.parquet", BOXES)
    assert np.array_equal(pixels_of(read_uri(stored.table.column("uri")[0].as_py())), PIXELS[5:8, 10:14])


@pytest.mark.parametrize(
    ("boxes", "message"), [("x,y,w,q", "has no 'q'"), ("x,y,w,path", "columns of numbers|must name columns")]
)
def test_wrong_columns_of_boxes_are_refused(boxes: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(pa.table(TABLE), SourceOptions(boxes=boxes))
    with pytest.raises(UsageError, match="must name four columns with commas, or one with lists of boxes, got 'x,y'"):
        SourceOptions(boxes="x,y")


def test_a_file_whose_name_looks_like_a_box_is_a_file(tmp_path: Path) -> None:
    save(tmp_path / "a.png#xywh=1,1,2,2", format="PNG")
    assert isinstance(read_uri(str(tmp_path / "a.png#xywh=1,1,2,2")), bytes)


def test_annotations_that_are_removed_or_numbered_anew_are_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    to = tmp_path / "parts.features"
    box = {"image_id": 1, "category_id": 7, "bbox": [10, 5, 14, 13]}
    for ids in ([1, 2, 3], [1, 9]):
        path = coco(tmp_path, *({"id": id} | box for id in ids))
        store = embedpipe.embed(path, to, backbone="python:tiny_backbone.make", prune=True, force=True)
        assert store.ids() == [f"a.png#{id}" for id in ids]


def test_a_margin_embeds_the_parts_again_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    path = coco(tmp_path, [10, 5, 14, 13], [0, 0, 40, 30], [90, 90, 5, 5])

    def embed(**options: Any) -> Any:
        to = tmp_path / "parts.features"
        return embedpipe.embed(path, to, backbone="python:tiny_backbone.make", **options).summary

    first, again, wider = embed(), embed(), embed(box_margin=0.1)
    assert (first.embedded, first.reused, first.failed) == (2, 0, 1)
    assert (again.embedded, again.reused, again.failed_new) == (0, 2, 0)
    assert wider.embedded == 2  # also the box of the whole picture, whose fragment differs
    store = embedpipe.FeatureStore(tmp_path / "parts.features")
    assert "lies outside of its picture" in store.failures().column("message")[0].as_py()

    pictures = Pictures(Collection(store))
    thumbnail = Image.open(io.BytesIO(pictures.thumbnail(0)))
    shown = np.asarray(Image.open(io.BytesIO(pictures.large(0))).convert("RGB")).astype(int)
    assert thumbnail.size == (18, 17)  # the part, with its margin
    assert shown.shape == (HEIGHT, WIDTH, 3)  # the whole picture, with a red frame
    assert shown[10, 7, 0] - shown[10, 7, 1] > 80
    assert abs(shown[10, 30] - PIXELS[10, 30]).max() < 60


sides = st.floats(0.01, 200).map(lambda value: float(f"{value:.6g}"))


@given(sides, sides, sides, sides, st.sampled_from(["pixel", "percent"]), st.floats(0, 2), st.booleans())
def test_a_uri_holds_the_whole_box(
    left: float, top: float, width: float, height: float, unit: Any, margin: float, known: bool
) -> None:
    margin = float(f"{margin:.6g}")
    box = Box(left, top, width, height, unit, margin, (WIDTH, HEIGHT) if known else None)
    assert split_box(f"/a#b.png{box.whole_fragment}") == ("/a#b.png", box)
    try:
        place = box.place(WIDTH, HEIGHT)
    except DecodeError:
        return
    assert 0 <= place[0] < place[2] <= WIDTH
    assert 0 <= place[1] < place[3] <= HEIGHT
    assert pixels_of(Crop(PIXELS, box)).shape == (place[3] - place[1], place[2] - place[0], 3)
