"""Data sets as Hugging Face writes them: Parquet shards, folders of `save_to_disk`, and objects of `datasets`."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import SourceOptions, open_source, read_uri
from embedpipe.sources.tables import parquet_cells

NAMES = ["cat", "dog", "bird"]
CLASS = {"names": NAMES, "_type": "ClassLabel"}
FEATURES = {"image": {"_type": "Image"}, "label": CLASS, "tags": {"feature": CLASS, "_type": "List"}}
METADATA = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}


def table(rows: int, start: int = 0, size: int = 10, paths: bool = False) -> pa.Table:
    """Return a table with the schema of a data set, whose images are texts of about ``size`` bytes."""
    numbers = range(start, start + rows)
    images = [
        {"bytes": f"image {i}".encode() * (size // 8 + 1), "path": f"{i}.png" if paths else None} for i in numbers
    ]
    columns = {
        "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": pa.array([i % 4 if i % 4 < 3 else -1 for i in numbers], pa.int64()),
        "tags": pa.array([[[0], [1, 2], [], None][i % 4] for i in numbers], pa.list_(pa.int64())),
        "file_name": pa.array([f"{i}.jpg" for i in numbers], pa.string()),
    }
    return pa.table(columns).replace_schema_metadata(METADATA)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder as the hub holds it, with splits in the names of its files."""
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / ".gitattributes").write_text("*.parquet filter=lfs")
    pq.write_table(table(4), tmp_path / "data" / "train-00000-of-00002.parquet")
    pq.write_table(table(4, 4), tmp_path / "data" / "train-00001-of-00002.parquet")
    pq.write_table(table(4, 8), tmp_path / "data" / "validation-00000-of-00001.parquet")
    return tmp_path


def test_shards_of_the_hub_are_one_source_with_names_of_classes_and_splits(shards: Path) -> None:
    listing = open_source(shards)
    rows = listing.table.to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 8 + ["validation"] * 4
    assert [row["label"] for row in rows] == ["cat", "dog", "bird", None] * 3
    assert rows[5]["id"] == "train-00001-of-00002/row-00000001"
    assert rows[0]["file_name"] == "0.jpg"  # metadata: the images are in the table itself
    assert [listing.read(row) for row in (0, 11)] == [b"image 0" * 2, b"image 11" * 2]
    assert read_uri(rows[11]["uri"]) == b"image 11" * 2


def test_a_pattern_or_a_file_of_shards_is_a_part_of_the_source(shards: Path) -> None:
    pattern = open_source(f"{shards}/data/train-*.parquet")
    assert pattern.table.equals(open_source(shards).table.slice(0, 8))
    one = open_source(shards / "data" / "validation-00000-of-00001.parquet")
    assert one.table.column("split").to_pylist() == ["validation"] * 4
    assert one.table.column("id")[0].as_py() == "row-00000000"


def test_lists_of_classes_are_several_labels(shards: Path) -> None:
    listing = open_source(shards, SourceOptions(label="tags"))
    assert listing.table.column("label").to_pylist()[:4] == ["cat", "dog;bird", ";", None]
    assert any("between labels" in note for note in listing.notes)


def test_the_only_column_of_classes_is_the_label(tmp_path: Path) -> None:
    both = table(2).rename_columns(["image", "species", "tags", "file_name"])
    one = {b"huggingface": METADATA[b"huggingface"].replace(b'"label"', b'"species"').replace(b'"tags"', b'"other"')}
    pq.write_table(both.replace_schema_metadata(one), tmp_path / "t.parquet")
    listing = open_source(tmp_path / "t.parquet")
    assert listing.table.column("label").to_pylist() == ["cat", "dog"]
    assert listing.notes == ("t.parquet: column 'species' is the label, as it alone holds classes",)
    two = {b"huggingface": METADATA[b"huggingface"].replace(b'"label"', b'"species"')}
    pq.write_table(both.replace_schema_metadata(two), tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").table.column("label").null_count == 2


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.parquet", "test.parquet"], ["test", "train"]),
        (["default/train/0000.parquet", "default/val/0000.parquet"], ["train", "validation"]),
        (["train.parquet", "other.parquet"], [None, None]),
        (["train-00000-of-00001-566a9b19d7203f8e.parquet", "x.parquet"], ["train", None]),
        (["unsupervised-00000-of-00001.parquet", "val_seen-00000-of-00001.parquet"], ["unsupervised", "val_seen"]),
        (["data-00000-of-00002.parquet", "data-00001-of-00002.parquet"], [None, None]),
    ],
)
def test_splits_are_those_of_the_names_of_all_files(names: list[str], splits: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(1), tmp_path / name)
    assert open_source(tmp_path).table.column("split").to_pylist() == splits


def test_a_column_of_splits_comes_before_the_names_of_files(tmp_path: Path) -> None:
    pq.write_table(table(1).append_column("split", pa.array(["test"])), tmp_path / "train-00000-of-00001.parquet")
    assert open_source(tmp_path).table.column("split").to_pylist() == ["test"]


def test_tables_of_a_store_below_a_folder_are_not_shards(shards: Path) -> None:
    store = shards / "old.features"
    (store / "_delta_log").mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"]}), store / "part.parquet")
    assert len(open_source(shards)) == 12


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    wrong = table(2).set_column(1, "label", pa.array([0, 3]))
    pq.write_table(wrong, tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"column 'label' .* its 3 classes, and holds 3"):
        open_source(tmp_path / "t.parquet")


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": [1]}}', b"[" * 100_000, b"\xff"])
def test_metadata_that_is_not_that_of_datasets_is_ignored(metadata: bytes, tmp_path: Path) -> None:
    pq.write_table(table(2).replace_schema_metadata({b"huggingface": metadata}), tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").table.column("label").to_pylist() == [0, 1]


def test_a_column_of_images_of_any_name_is_taken(tmp_path: Path) -> None:
    images = table(2).rename_columns(["img", "label", "tags", "file_name"]).replace_schema_metadata(None)
    pq.write_table(images, tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet").read(1) == b"image 1" * 2
    two = images.append_column("mask", images.column("img"))
    pq.write_table(two.drop_columns("file_name"), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"several columns of images, \['img', 'mask'\]: name one \(image="):
        open_source(tmp_path / "t.parquet")
    assert len(open_source(tmp_path / "t.parquet", SourceOptions(image="mask"))) == 2


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "https://example.org/a.png"])
def test_paths_in_a_data_set_do_not_leave_its_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "data").mkdir()
    image = {"bytes": None, "path": path}
    file = tmp_path / "data" / "t.parquet"
    pq.write_table(pa.table({"image": pa.array([image], table(0).schema.field("image").type)}), file)
    with pytest.raises(ReadError, match="nothing else is read"):
        open_source(file).read(0)


class Counted(io.RawIOBase):
    """A file that counts the bytes that are read from it."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115
        self.count = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self.count += count
        return count


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Path]:
    """A file with all images in one row group, each of 10 kB."""
    path = tmp_path / "large.parquet"
    pages = {"write_batch_size": 4, "data_page_size": 1 << 15}
    pq.write_table(table(400, size=10_000, paths=True), path, compression="none", use_dictionary=False, **pages)
    return path


def test_a_large_row_group_is_read_part_by_part(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_cells, "_LARGE_GROUP", 1 << 20)
    monkeypatch.setattr(parquet_cells, "_PART", 1 << 16)
    monkeypatch.setattr(parquet_cells, "_PARTS_KEPT", 2)
    files: list[Counted] = []

    def opened(path: str) -> pa.PythonFile:
        files.append(Counted(path))
        return pa.PythonFile(files[-1])

    monkeypatch.setattr(parquet_cells, "open_file", opened)
    listing = open_source(large)
    read = listing.read
    assert not files  # the listing reads no image
    assert [read(row)[:8] for row in range(10)] == [f"image {row}i".encode() for row in range(10)]
    assert sum(file.count for file in files) < 1_000_000
    size = large.stat().st_size
    for row in range(10, 400):
        assert read(row).startswith(f"image {row}image".encode())
    assert sum(file.count for file in files) < 1.2 * size  # each byte once
    assert read.nbytes < 400_000
    # behind the parts in memory, so from the beginning again; and in the first window still
    assert [read(row)[:10] for row in (5, 399)] == [b"image 5ima", b"image 399i"]
    assert sum(file.count for file in files) < 1.5 * size
    for file in files:
        file.close()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder as `DatasetDict.save_to_disk` writes it."""
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split, count in (("train", 2), ("test", 1)):
        folder = tmp_path / split
        folder.mkdir()
        names = [f"data-{i:05d}-of-{count:05d}.arrow" for i in range(count)]
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
        (folder / "dataset_info.json").write_text("{}")
        for i, name in enumerate([*names, "data-00009-of-00009.arrow"]):  # the last is left from an earlier one
            with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table(0).schema) as stream:
                stream.write_table(table(3, 3 * i), max_chunksize=2)
    return tmp_path


def test_saved_data_sets_are_read_without_datasets(saved: Path) -> None:
    listing = open_source(saved)
    rows = listing.table.to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 6 + ["test"] * 3
    assert [row["id"] for row in rows][5:7] == [
        "train/data-00001-of-00002/row-00000002",
        "test/data-00000-of-00001/row-00000000",
    ]
    assert rows[1]["label"] == "dog"
    assert [listing.read(row) for row in (2, 4)] == [b"image 2" * 2, b"image 4" * 2]
    assert [read_uri(row["uri"]) for row in rows] == [listing.read(row) for row in range(9)]
    part = pickle.loads(pickle.dumps(listing.take(np.array([8, 4]))))
    assert [part.read(row) for row in (0, 1)] == [b"image 2" * 2, b"image 4" * 2]
    assert [row["id"] for row in open_source(saved / "test").table.to_pylist()][:2] == ["row-00000000", "row-00000001"]


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", "..", "a/b.arrow", 3])
def test_a_saved_data_set_names_no_files_elsewhere(saved: Path, name: Any) -> None:
    (saved / "test" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(SourceError, match="must name files and folders beside it"):
        open_source(saved)


def test_a_damaged_saved_data_set_is_refused(saved: Path) -> None:
    path = saved / "test" / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"cannot read the table .*data-00000-of-00001\.arrow"):
        open_source(saved)
    (saved / "test" / "state.json").write_text("{")
    with pytest.raises(SourceError, match=r"cannot read .*state\.json', which save_to_disk has written"):
        open_source(saved)


def test_an_arrow_file_that_changes_is_refused(saved: Path) -> None:
    listing = open_source(saved)
    path = saved / "test" / "data-00000-of-00001.arrow"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b" ")
    with pytest.raises(ReadError, match="has changed since its rows were listed"):
        listing.read(8)


@pytest.fixture(scope="module")
def both() -> Any:
    """The rows of ``shards`` as a `DatasetDict` in memory."""
    datasets = pytest.importorskip("datasets")
    info = datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(table(0).schema))
    parts = {"train": table(8), "validation": table(4, 8)}
    return datasets.DatasetDict({name: datasets.Dataset(part, info) for name, part in parts.items()})


def payloads(listing: Any) -> list[bytes]:
    return [listing.read(row) for row in range(len(listing))]


def test_objects_of_datasets_are_listed_as_their_files(both: Any, shards: Path) -> None:
    listing, expected = open_source(both), open_source(shards)
    names = ["label", "split", "file_name"]
    assert listing.table.select(names).to_pydict() == expected.table.select(names).to_pydict()
    assert listing.table.column("id")[9].as_py() == "validation/row-00000001"
    assert payloads(listing) == payloads(expected)
    part = pickle.loads(pickle.dumps(listing.take(np.array([11, 3]))))
    assert [part.read(0), part.read(1)] == [b"image 11" * 2, b"image 3" * 2]


def test_chosen_rows_of_a_data_set_keep_their_order(both: Any) -> None:
    assert payloads(open_source(both["train"].select([6, 2]))) == [b"image 6" * 2, b"image 2" * 2]


def test_iterable_data_sets_are_read_once_without_decoding(both: Any) -> None:
    datasets = pytest.importorskip("datasets")
    listing = open_source(both["train"].to_iterable_dataset())
    assert listing.table.column("label").to_pylist() == ["cat", "dog", "bird", None] * 2
    assert payloads(listing) == payloads(open_source(both["train"]))
    streams = datasets.IterableDatasetDict({name: part.to_iterable_dataset() for name, part in both.items()})
    assert open_source(streams).table.column("split").to_pylist() == ["train"] * 8 + ["validation"] * 4


def test_a_transform_of_a_data_set_is_left_out_and_said(both: Any) -> None:
    (note,) = open_source(both["train"].with_transform(dict)).notes
    assert "transform of the data set is left out" in note


def test_pages_find_the_images_of_data_sets_that_are_files(both: Any, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    both.save_to_disk(tmp_path / "saved")
    uris = open_source(tmp_path / "saved").table.column("uri").to_pylist()
    loaded = datasets.load_from_disk(tmp_path / "saved")
    assert open_source(loaded).table.column("uri").to_pylist() == uris
    assert [read_uri(uri) for uri in uris] == payloads(open_source(both))
    order = tmp_path / "order.arrow"
    chosen = loaded["train"].select([7, 0, 3], indices_cache_file_name=str(order))
    assert order.exists()
    assert open_source(chosen).table.column("uri").to_pylist() == [uris[7], uris[0], uris[3]]


def test_paths_in_objects_of_datasets_are_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = datasets.Dataset.from_dict({"image": [str(tmp_path / "a.png")]}).cast_column("image", datasets.Image())
    with pytest.raises(SourceError, match=r"files below the working folder only.*allow_root="):
        open_source(paths)
    listing = open_source(paths, SourceOptions(allow_root=(str(tmp_path),)))
    assert listing.table.column("uri").to_pylist() == [str(tmp_path / "a.png")]
    assert listing.read(0) == b"picture"
    urls = datasets.Dataset.from_dict({"image": ["https://example.org/a.png"]}).cast_column("image", datasets.Image())
    with pytest.raises(SourceError, match="files below the working folder only"):
        open_source(urls)
