"""Parts of a listing in another process: they read what the listing reads, and hold their own rows only."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedpipe.embedding.runners.tasks import Task
from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import SourceOptions, open_source
from embedpipe.sources.listing import Listing
from embedpipe.sources.tables import parquet_cells

ROWS = 600
TEXTS = [f"text {row}, with some words that take room" * (row != 7) for row in range(ROWS)]
IMAGES = [f"image {row}".encode() * 20 for row in range(ROWS)]
STRUCTS = pa.array([None] + [{"bytes": image, "path": None} for image in IMAGES[1:]])


def tiff(pages: int) -> bytes:
    first, *others = (Image.new("L", (4, 4), 10 * page) for page in range(pages))
    first.save(file := io.BytesIO(), format="TIFF", save_all=True, append_images=others)
    return file.getvalue()


def write_files(folder: Path, suffix: str) -> Path:
    for row, image in enumerate(IMAGES):
        path = folder / "abc"[row % 3] / f"{row:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    return folder


def folder(base: Path) -> Listing:
    listing = open_source(write_files(base / "photos", ".jpg"), SourceOptions(prefix="mine"))
    (base / "photos" / "a" / "000.jpg").unlink()  # it cannot be read any more
    return listing


def emails(base: Path) -> Listing:
    return open_source(write_files(base, ".eml"), modality="text")


def file_list(base: Path) -> Listing:
    lines = ["/etc/hostname", *(f"photos/{'abc'[row % 3]}/{row:03d}.jpg" for row in range(ROWS))]
    write_files(base / "photos", ".jpg")
    (base / "list.txt").write_text("\n".join(lines))
    return open_source(base / "list.txt")


def single_file(base: Path) -> Listing:
    (base / "one.jpg").write_bytes(b"one")
    return open_source(base / "one.jpg")


def paths_in_table(base: Path) -> Listing:
    write_files(base / "photos", ".jpg")
    names = [f"photos/{'abc'[row % 3]}/{row:03d}.jpg" if row != 5 else "" for row in range(ROWS)]
    (base / "table.csv").write_text("id,file\n" + "".join(f"i{row},{name}\n" for row, name in enumerate(names)))
    return open_source(base / "table.csv")


def texts_in_csv(base: Path) -> Listing:
    ids = ["" if row % 10 == 3 else f"i{row}" for row in range(ROWS)]  # rows without an id are left out
    pd.DataFrame({"id": ids, "text": TEXTS}).to_csv(base / "t.csv", index=False)
    listing = open_source(base / "t.csv", modality="text")
    assert len(listing.failures) == ROWS // 10
    return listing


def parquet(base: Path) -> Listing:
    pq.write_table(pa.table({"image": STRUCTS}), base / "t.parquet", row_group_size=50)
    return open_source(base / "t.parquet")


def several_tables(base: Path) -> Listing:
    for name, start in (("a", 0), ("b", 250), ("c", 500)):
        end = min(start + 250, ROWS)
        pq.write_table(pa.table({"text": TEXTS[start:end]}), base / f"{name}.parquet", row_group_size=50)
    return open_source(f"{base}/*.parquet", modality="text")


def texts(base: Path) -> Listing:
    return open_source([None, float("nan"), pd.NA, b"bytes", *TEXTS], modality="text")


def items(base: Path) -> Listing:
    (base / "a.jpg").write_bytes(b"a.jpg")
    array = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    return open_source([base / "a.jpg", str(base / "no such.png"), None, Image.fromarray(array), array, *IMAGES])


def arrays(base: Path) -> Listing:
    return open_source(np.arange(ROWS * 12, dtype=np.uint32).astype(np.uint8).reshape(ROWS, 2, 2, 3))


def text_frame(base: Path) -> Listing:
    return open_source(pa.table({"text": TEXTS}), modality="text")


def image_frame(values: Callable[[], Any]) -> Callable[[Path], Listing]:
    return lambda base: open_source(pa.table({"image": values()}))


def shards(base: Path) -> Listing:
    for number in range(3):
        with tarfile.open(base / f"{number}.tar", "w") as tar:
            for row, image in enumerate(IMAGES[number::3]):
                info = tarfile.TarInfo(f"{row}.jpg")
                info.size = len(image)
                tar.addfile(info, io.BytesIO(image))
    return open_source(f"{base}/*.tar")


def pages(base: Path) -> Listing:
    for row in range(6):
        (base / f"{row}.tif").write_bytes(tiff(1 + row))
    listing = open_source(base, SourceOptions(tiff_pages="all"))
    (base / "4.tif").write_bytes(tiff(3))  # it has lost two pages
    return listing


def boxes(base: Path) -> Listing:
    write_files(base, ".jpg")
    (base / "abc"[1] / "001.jpg").unlink()  # it cannot be read
    annotations = [{"image_id": row % 20, "category_id": 1, "bbox": [row, 1, 5, 6]} for row in range(ROWS)]
    images = [{"id": row, "file_name": f"{'abc'[row % 3]}/{row:03d}.jpg"} for row in range(20)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (base / "coco.json").write_text(json.dumps(content))
    return open_source(base / "coco.json")


def saved(base: Path) -> Listing:
    table = pa.table({"image": STRUCTS})
    with pa.OSFile(str(base / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=50)
    return open_source(base / "data.arrow")


def pairs(base: Path) -> Listing:
    return open_source([(image, row % 3) for row, image in enumerate([None, *IMAGES])])


def iterator(base: Path) -> Listing:
    return open_source(iter([None, *IMAGES]))


KINDS: dict[str, Callable[[Path], Listing]] = {
    **{
        make.__name__: make
        for make in (
            folder, emails, file_list, single_file, paths_in_table, texts_in_csv, parquet, several_tables, texts, items,
            arrays, text_frame, shards, pages, boxes, saved, pairs, iterator,
        )
    },
    "structs": image_frame(lambda: STRUCTS),
    "views": image_frame(lambda: pa.array(IMAGES, pa.binary_view())),
    "dictionary": image_frame(lambda: pa.array(IMAGES).dictionary_encode()),
    "runs": image_frame(lambda: pa.RunEndEncodedArray.from_arrays(list(range(1, ROWS + 1)), pa.array(IMAGES))),
}  # fmt: skip


@pytest.fixture(scope="module")
def listings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Listing]:
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in KINDS.items()}


def outcome(listing: Listing, row: int) -> Any:
    """Return what reading a row gives, in a form that can be compared: the payload, or the error."""
    try:
        payload = listing.read(row)
    except Exception as error:
        return type(error), str(error)
    value = (payload.mode, payload.size, payload.tobytes()) if isinstance(payload, Image.Image) else payload
    return type(payload), (value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def sent(listing: Listing, rows: list[int]) -> Listing:
    part: Listing = pickle.loads(pickle.dumps(listing.take(np.array(rows, np.int64))))
    return part


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(data=st.data())
def test_a_part_reads_what_the_listing_reads(kind: str, listings: dict[str, Listing], data: st.DataObject) -> None:
    listing = listings[kind]
    # Rows that cannot be read are among the first.
    numbers = st.integers(0, min(9, len(listing) - 1)) | st.integers(0, len(listing) - 1)
    rows = data.draw(st.lists(numbers, max_size=12))
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)) if rows else []
    expected = [outcome(listing, row) for row in rows]
    for part in (listing.take(np.array(rows, np.int64)), sent(listing, rows)):
        assert part.table.equals(listing.table.take(pa.array(rows, pa.int64())))
        assert (part.root, part.excerpts, part.failures) == (listing.root, listing.excerpts, ())
        assert [outcome(part, row) for row in range(len(rows))] == expected
        assert [outcome(sent(part, places), row) for row in range(len(places))] == [expected[i] for i in places]


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_holds_its_own_rows_only(kind: str, listings: dict[str, Listing]) -> None:
    listing = listings[kind]
    rows = np.linspace(0, len(listing) - 1, 10).astype(np.int64)
    assert len(pickle.dumps(listing.take(rows))) < 6_000  # the whole listing takes about 100,000 bytes


def test_tasks_of_a_process_open_a_parquet_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = parquet(tmp_path)
    opened: list[Any] = []
    monkeypatch.setattr(
        parquet_cells, "open_file", lambda path, opens=parquet_cells.open_file: opened.append(path) or opens(path)
    )
    tasks = [pickle.dumps(listing.take(np.arange(start, start + 50))) for start in range(0, 200, 50)]
    for start, task in enumerate(tasks):
        assert pickle.loads(task).read(3) == IMAGES[50 * start + 3]
    assert len(opened) == 1


@pytest.mark.parametrize(("limit", "value"), [("_MOST_OPEN", 3), ("_MOST_BYTES", 10_000)])
def test_few_of_many_parquet_files_are_open(
    limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [f"image {row}".encode() * 50 for row in range(200)]
    for number in range(20):
        part = images[10 * number : 10 * number + 10]
        pq.write_table(pa.table({"image": part}), tmp_path / f"{number:02d}.parquet", row_group_size=5)
    listing = open_source(tmp_path)
    files: list[Any] = []
    monkeypatch.setattr(parquet_cells, "open_file", lambda path: files.append(pa.OSFile(path)) or files[-1])
    monkeypatch.setattr(parquet_cells, limit, value)
    assert [listing.read(row) for row in range(200)] == images
    assert 1 <= sum(not file.closed for file in files) <= 3
    rows = np.random.default_rng(0).permutation(200).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(listing.read, rows)) == [images[row] for row in rows]


def test_a_part_notices_that_its_file_has_changed(tmp_path: Path) -> None:
    part = pickle.dumps(parquet(tmp_path).take(np.arange(3)))
    pq.write_table(pa.table({"image": ["other"] * 9}), tmp_path / "t.parquet")
    with pytest.raises(ReadError, match="changed since its rows were listed"):
        pickle.loads(part).read(0)


@pytest.mark.parametrize("allowed", [True, False])
def test_what_may_be_read_travels_with_the_rows(allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process may have other settings."""
    for name in ("a", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"x")
    (tmp_path / "a" / "t.csv").write_text(f"file\nx.jpg\n{tmp_path}/elsewhere/x.jpg\n")
    settings = [str(tmp_path), ""] if allowed else ["", str(tmp_path)]
    monkeypatch.setenv("EMBEDPIPE_ALLOW_ROOT", settings[0])
    task = pickle.dumps(open_source(tmp_path / "a" / "t.csv").take(np.array([1])))
    monkeypatch.setenv("EMBEDPIPE_ALLOW_ROOT", settings[1])
    part = pickle.loads(task)
    if allowed:
        assert part.read(0) == b"x"
    else:
        with pytest.raises(ReadError, match="is outside of"):
            part.read(0)


def test_items_that_cannot_be_sent_are_an_error_of_their_task_only() -> None:
    listing = open_source([b"image", threading.Lock()])

    def task(rows: list[int]) -> Task:
        numbers = np.array(rows, np.int64)
        return Task(0, listing.take(numbers), pa.table({}), numbers, known=False)

    assert pickle.loads(task([0]).pickled()).listing.read(0) == b"image"
    with pytest.raises(SourceError, match=r"must be picklable .* \(cannot pickle '_thread.lock' object\): give paths"):
        task([0, 1]).pickled()
