"""The JSON API: rows, filters, neighbours, pictures, uploads."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from PIL import Image
from serving.conftest import Api, make_viewer
from stored import clusters, make_store

import embedpipe
from embedpipe._utils.config import cache_folder
from embedpipe.serving.app import create_app
from embedpipe.serving.viewing.pictures import THUMBNAIL, check_below


def test_the_store_is_described(api: Api) -> None:
    info = api.client.get("/api/store").json()
    assert (info["name"], info["rows"], info["modality"], info["edit"]) == ("photos.features", 30, "image", False)
    assert not info["words"]  # its backbone embeds no texts
    assert info["columns"] == [{"name": "label", "kind": "class", "values": ["cat", "dog", "owl"]}]


def test_rows_come_in_id_order_in_parts(api: Api, store: embedpipe.FeatureStore) -> None:
    answer = api.json("rows", start=28, count=10)
    assert (answer["total"], [row["row"] for row in answer["rows"]]) == (30, [28, 29])
    assert [row["id"] for row in api.json("rows", count=30)["rows"]] == store.ids()
    assert sorted(row["row"] for row in api.json("rows", count=30, order="random")["rows"]) == [*range(30)]


def test_neighbours_are_those_of_search(api: Api, store: embedpipe.FeatureStore) -> None:
    answer = api.json("rows", near="row:7", count=30)
    assert (answer["rows"][0]["row"], answer["how"]) == (7, "exact")
    expected = embedpipe.search(store, store.ids()[7], k=29, progress=False).table
    assert [row["id"] for row in answer["rows"][1:]] == expected["id"].to_pylist()
    assert np.allclose([row["score"] for row in answer["rows"][1:]], expected["score"].to_numpy(), atol=1e-12)


def test_classes_filter_rows_and_neighbours_and_leave_their_own_counts(api: Api) -> None:
    classes = json.dumps({"label": ["owl", "cat"]})
    assert {row["label"] for row in api.json("rows", classes=classes)["rows"]} == {"owl", "cat"}
    assert {row["label"] for row in api.json("rows", classes=classes, near="row:12")["rows"]} == {"owl", "cat"}
    assert api.json("counts", classes=classes)["label"] == [
        {"value": name, "count": 10} for name in ("cat", "dog", "owl")
    ]


def test_an_upload_finds_the_item_with_its_content(api: Api, store: embedpipe.FeatureStore) -> None:
    uri = store.to_arrow(["uri"])["uri"][4].as_py()
    answer = api.post("queries/picture", content=Path(uri).read_bytes())
    assert answer.status_code == 200, answer.text
    nearest = api.json("rows", near=f"query:{answer.json()['key']}")["rows"][0]
    assert (nearest["row"], round(nearest["score"], 6)) == (4, 1.0)
    seen = api.get(f"queries/{answer.json()['key']}/picture")
    assert Image.open(io.BytesIO(seen.content)).size == (60, 48)


def bomb(side: int) -> bytes:
    """Return a small PNG file that claims many pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "required"),
        (b"<svg onload=alert(1)>", "cannot be read as one"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, ""),
        (bomb(9_000), "at most 60,000,000 pixels"),
        (bomb(30_000), "at most 60,000,000 pixels"),
        (bomb(500), ""),
    ],
)
def test_broken_uploads_are_refused_with_a_reason(api: Api, data: bytes, reason: str) -> None:
    answer = api.post("queries/picture", content=data)
    assert answer.status_code == 400, answer.text
    assert reason in answer.json()["error"]
    assert answer.json()["error"]


def test_large_bodies_are_refused(api: Api) -> None:
    assert api.post("queries/picture", content=b"\0" * (33 << 20)).status_code == 413
    assert api.post("queries/words", content=b"\0" * (2 << 20)).status_code == 413


def test_words_need_a_text_tower(api: Api) -> None:
    answer = api.post("queries/words", json={"words": "a cat"})
    assert answer.status_code == 400
    assert "no encoder for texts" in answer.json()["error"]


def test_pictures_are_made_anew_and_kept(api: Api, store: embedpipe.FeatureStore) -> None:
    answer = api.get("rows/3/picture")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert Image.open(io.BytesIO(answer.content)).size == (60, 48)
    assert api.get("rows/3/picture", size="large").status_code == 200
    assert max(Image.open(io.BytesIO(answer.content)).size) <= THUMBNAIL


def test_a_missing_file_is_reported(api: Api) -> None:
    row = next(row["row"] for row in api.json("rows", count=30)["rows"] if row["id"] == "owl/29.jpg")
    answer = api.get(f"rows/{row}/picture")
    assert (answer.status_code, "no such file" in answer.json()["error"]) == (410, True)
    assert api.json(f"rows/{row}")["values"]["label"] == "owl"


def test_a_file_with_other_content_is_not_shown(make_photos: Any) -> None:
    photos = make_photos(6)
    store = embedpipe.embed(photos, photos.parent / "s", backbone="python:tiny_backbone.make", progress=False)
    api = Api(create_app(make_viewer(store.path)))
    first, second = store.to_arrow(["uri"])["uri"].to_pylist()[:2]
    Path(first).write_bytes(Path(second).read_bytes())
    assert "changed since" in api.get("rows/0/picture").json()["error"]


def test_only_what_lies_below_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    check_below(f"{tmp_path}/in/a.jpg", f"{tmp_path}/in")
    check_below(f"tar://a.jpg::{tmp_path}/in/x.tar", f"{tmp_path}/in/x.tar")
    check_below(f"{tmp_path}/in/a.jpg", f"{tmp_path}/in/table.csv")
    for uri in (
        f"{tmp_path}/other.jpg",
        f"{tmp_path}/in/../other.jpg",
        "/etc/passwd",
        "http://evil.example/a.jpg",
        "memory://a",
    ):
        with pytest.raises(embedpipe.EmbedpipeError, match="outside"):
            check_below(uri, f"{tmp_path}/in")


@pytest.mark.parametrize(
    ("path", "values", "status"),
    [
        ("rows/30", {}, 410),
        ("rows/-1", {}, 400),
        ("rows/x", {}, 400),
        ("rows/..%2f..%2fetc%2fpasswd", {}, 404),
        ("rows", {"key": "old"}, 410),
        ("rows", {"near": "row:99"}, 410),
        ("rows", {"near": "row:1e3"}, 400),
        ("rows", {"near": "query:unknown"}, 410),
        ("rows", {"near": "/etc/passwd"}, 400),
        ("rows", {"classes": "[1"}, 400),
        ("rows", {"classes": '{"colour": ["red"]}'}, 400),
        ("rows", {"within": "1,2,3"}, 400),
        ("rows", {"within": "nan,1,2,3,4,5"}, 400),
        ("rows", {"order": "wrong"}, 400),
        ("rows", {"count": 10_000}, 400),
        ("queries/none/picture", {}, 410),
        ("nothing", {}, 404),
    ],
)
def test_wrong_requests_are_refused_with_a_reason(api: Api, path: str, values: dict[str, Any], status: int) -> None:
    answer = api.get(path, **values)
    assert (answer.status_code, bool(answer.json()["error"])) == (status, True), answer.text


def test_new_items_end_the_row_numbers(make_photos: Any) -> None:
    photos = make_photos(6)
    to = photos.parent / "s"
    embedpipe.embed(photos, to, backbone="python:tiny_backbone.make", progress=False)
    api = Api(create_app(make_viewer(to)))
    make_photos(9)
    embedpipe.embed(photos, to, backbone="python:tiny_backbone.make", progress=False)
    assert api.json("rows")["total"] == 6  # what was opened stays
    assert api.client.get("/api/store").json()["rows"] == 9
    assert "load the page again" in api.get("rows").json()["error"]


def test_columns_may_hold_anything(tmp_path: Path) -> None:
    late = pa.array([2**58] * 3, pa.timestamp("us"))  # no year that Python knows
    columns = {"text": [1, 2, 3], "number": [2**60, 1, -5], "taken": late, "confidence": ["high", "low", None]}
    api = Api(create_app(make_viewer(make_store(tmp_path / "s", clusters(3)[0], **columns).path)))
    assert [row["text"] for row in api.json("rows")["rows"]] == ["1", "2", "3"]
    values = api.json("rows/0")["values"]
    assert (values["number"], values["taken"][:5], values["confidence"]) == (2**60, "11103", "high")


def test_forget_deletes_thumbnails_also_of_a_store_that_is_gone(make_photos: Any) -> None:
    photos = make_photos(3)
    for name in ("first", "second"):
        store = embedpipe.embed(photos, photos.parent / name, backbone=TINY, progress=False)
        assert Api(create_app(make_viewer(store.path))).get("rows/0/picture").status_code == 200
    shutil.rmtree(photos.parent / "first")
    id, content = (str(store.to_arrow([name]).column(0)[0]) for name in ("id", "content_hash"))
    assert len(list(cache_folder().rglob(content))) == 2
    embedpipe.forget(store, [id])
    assert list(cache_folder().rglob(content)) == []


def test_a_query_is_of_the_backbone_that_the_store_has(make_photos: Any) -> None:
    photos = make_photos(6)
    to = photos.parent / "s"
    picture = next(photos.rglob("*.jpg")).read_bytes()

    def ask() -> tuple[str, Any]:
        api.key = api.client.get("/api/store").json()["key"]
        key = api.post("queries/picture", content=picture, headers={"content-type": "application/octet-stream"}).json()[
            "key"
        ]
        return key, api.get("rows", near=f"query:{key}").json()

    embedpipe.embed(photos, to, backbone=TINY, progress=False)
    api = Api(create_app(make_viewer(to)))
    first, rows = ask()
    assert rows["rows"][0]["score"] == pytest.approx(1, abs=1e-4)
    shutil.rmtree(to)
    embedpipe.embed(photos, to, backbone=TINY, layer="conv1", progress=False)
    rows = ask()[1]  # another store of the same version
    assert rows["rows"][0]["score"] == pytest.approx(1, abs=1e-4)
    assert "another backbone" in api.get("rows", near=f"query:{first}").json()["error"]
