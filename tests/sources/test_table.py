"""Tables of images: roles of columns, paths and bytes, metadata, and refused tables."""

from __future__ import annotations

import concurrent.futures
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embedpipe.errors import DuplicateIdError, ReadError, SourceError
from embedpipe.sources import SourceOptions, open_source, read_table, read_uri

ROWS = {"file": ["a.jpg", "sub/b.jpg"], "label": ["cat", "dog"], "split": ["train", "test"], "age": [3, None]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files whose contents are their names."""
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "sub/b.jpg"):
        (tmp_path / name).write_text(name)
    return tmp_path


def write_csv(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path)


def write_tsv(table: pa.Table, path: Path) -> None:
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter="\t"))


def write_json(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".jsonl": write_json,
    ".ndjson": write_json,
    ".parquet": pq.write_table,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_table_files_with_paths_are_listed(folder: Path, suffix: str) -> None:
    path = folder / f"labels{suffix}"
    WRITERS[suffix](pa.table(ROWS), path)
    listing = open_source(path)
    table = listing.table
    assert listing.root == str(path)
    assert table.column("id").to_pylist() == ROWS["file"]
    assert table.column("uri").to_pylist() == [str(folder / name) for name in ROWS["file"]]
    assert table.column("label").to_pylist() == ["cat", "dog"]
    assert table.column("split").to_pylist() == ["train", "test"]
    assert table.column("age").to_pylist() == [3, None]
    assert table.column("age").type == pa.int64()


@pytest.mark.parametrize("suffix", WRITERS)
def test_images_of_a_table_file_have_size_time_and_payload(folder: Path, suffix: str) -> None:
    path = folder / f"labels{suffix}"
    WRITERS[suffix](pa.table(ROWS), path)
    listing = open_source(path)
    table = listing.table
    assert table.column("source_size").to_pylist() == [5, 9]
    assert table.column("source_modified")[0].as_py() == (folder / "a.jpg").stat().st_mtime_ns
    assert [listing.read(row) for row in (0, 1)] == [b"a.jpg", b"sub/b.jpg"]
    assert [read_uri(uri) for uri in table.column("uri").to_pylist()] == [b"a.jpg", b"sub/b.jpg"]


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, pl.DataFrame], ids=["pyarrow", "pandas", "polars"])
def test_frames_with_paths_are_listed(
    folder: Path, make: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    listing = open_source(make(ROWS))
    assert listing.root == "memory"
    assert listing.table.column("id").to_pylist() == ROWS["file"]
    assert listing.table.column("label").to_pylist() == ["cat", "dog"]
    assert listing.table.column_names[-1] == "age"
    monkeypatch.chdir("/")
    assert listing.read(1) == b"sub/b.jpg"


def hugging_face(folder: Path, rows: int = 25, group: int = 10) -> Path:
    """Write a Parquet file of images as in Hugging Face data sets."""
    images = [{"bytes": f"image {i}".encode(), "path": f"{i}.png" if i % 2 else None} for i in range(rows)]
    path = folder / "train.parquet"
    pq.write_table(pa.table({"image": images, "label": list(range(rows))}), path, row_group_size=group)
    return path


def test_parquet_structs_are_read_on_demand(folder: Path) -> None:
    path = hugging_face(folder)
    listing = open_source(path)
    ids = listing.table.column("id").to_pylist()
    assert ids[:3] == ["row-00000000", "1.png", "row-00000002"]
    assert listing.table.column("label").to_pylist() == list(range(25))
    assert listing.table.column_names == ["id", "uri", "source_size", "source_modified", "label", "split"]
    assert listing.table.column("source_size").null_count == 25
    assert set(listing.table.column("source_modified").to_pylist()) == {path.stat().st_mtime_ns}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        payloads = list(pool.map(listing.read, range(25)))
    assert payloads == [f"image {i}".encode() for i in range(25)]
    uri = listing.table.column("uri")[17].as_py()
    assert uri == f"parquet://image/17::{path}"
    assert read_uri(uri) == b"image 17"


def test_cell_of_a_changed_file_is_read_again(folder: Path) -> None:
    path = hugging_face(folder)
    assert read_uri(f"parquet://image/1::{path}") == b"image 1"
    pq.write_table(pa.table({"image": [b"new 0", b"new 1"]}), path)
    assert read_uri(f"parquet://image/1::{path}") == b"new 1"
    with pytest.raises(ReadError, match="2 rows"):
        read_uri(f"parquet://image/2::{path}")
    with pytest.raises(ReadError):
        read_uri(f"parquet://nothing/0::{path}")
    with pytest.raises(ReadError, match="a uri of a"):
        read_uri("parquet://image")


def test_parquet_whose_column_name_is_not_text_is_refused(folder: Path) -> None:
    path = folder / "t.parquet"
    pq.write_table(pa.table({"id": ["a"], "caption": ["one"]}), path)
    path.write_bytes(path.read_bytes().replace(b"caption", b"\xff\xfeption"))
    with pytest.raises(SourceError, match=r"cannot read the table .*t\.parquet"):
        open_source(path, modality="text")


def test_listing_a_parquet_file_reads_no_images(folder: Path) -> None:
    path = folder / "big.parquet"
    table = pa.table({"image": [bytes(1000)] * 50, "mask": [bytes(9)] * 50, "id": list(range(50))})
    pq.write_table(table, path, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    listing = open_source(path)
    assert listing.table.column("id").to_pylist() == [str(i) for i in range(50)]
    assert listing.skipped == {"column 'mask' (binary)": 1}
    with pytest.raises(ReadError, match="row 3 of"):
        listing.read(3)


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)], ids=str)
def test_bytes_in_memory_are_listed(type: pa.DataType) -> None:
    listing = open_source(pa.table({"image": pa.array([b"one", b"two", None], type)}))
    assert listing.table.column("id").to_pylist() == ["row-00000000", "row-00000001", "row-00000002"]
    assert listing.table.column("uri").null_count == 3
    assert [listing.read(0), listing.read(1)] == [b"one", b"two"]
    with pytest.raises(ReadError, match="no image"):
        listing.read(2)


def test_struct_without_bytes_is_read_from_its_path(folder: Path) -> None:
    rows = [{"bytes": None, "path": "a.jpg"}, {"bytes": b"x", "path": "a2.jpg"}]
    type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    path = folder / "mixed.parquet"
    pq.write_table(pa.table({"image": pa.array(rows, type)}), path)
    listing = open_source(path)
    assert [listing.read(0), listing.read(1)] == [b"a.jpg", b"x"]


def test_ids_are_strings_and_labels_keep_their_type(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_text("id,file,label,note\n007,a.jpg,1,\n08,sub/b.jpg,2,NA\n9,c.jpg,3,text\n")
    table = open_source(path).table
    assert table.column("id").to_pylist() == ["007", "08", "9"]
    assert table.column("label").to_pylist() == [1, 2, 3]
    assert table.column("note").to_pylist() == [None, "NA", "text"]
    assert read_table(str(path)).column("id").to_pylist() == ["007", "08", "9"]


def test_type_change_late_in_a_csv_is_read(folder: Path) -> None:
    path = folder / "long.csv"
    lines = [f"{'a/' * 50}{i}.jpg,{i}" for i in range(20_000)]  # two blocks of a megabyte: the first decides the type
    path.write_text("\n".join(["file,label", *lines, "last.jpg,unknown"]))
    labels = open_source(path).table.column("label")
    assert labels[0].as_py() == "0"
    assert labels[-1].as_py() == "unknown"


def test_options_select_columns(folder: Path) -> None:
    path = folder / "t.csv"
    path.write_text("where,name,kind,part\na.jpg,first,cat,train\nsub/b.jpg,second,dog,test\n")
    options = SourceOptions(image="where", id="name", label="kind", split="part")
    table = open_source(path, options).table
    assert table.column("id").to_pylist() == ["first", "second"]
    assert table.column("label").to_pylist() == ["cat", "dog"]
    assert table.column("split").to_pylist() == ["train", "test"]
    assert len(table.column_names) == 6


def test_rows_without_id_or_image_fail(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_text("id,file\nx,a.jpg\n,a.jpg\nz,\nw,sub/b.jpg\n")
    listing = open_source(path)
    assert listing.table.column("id").to_pylist() == ["x", "z", "w"]
    (failure,) = listing.failures
    assert (failure.id, failure.stage) == ("row 2 of labels.csv", "list")
    assert [listing.read(0), listing.read(2)] == [b"a.jpg", b"sub/b.jpg"]
    with pytest.raises(ReadError, match="no image"):
        listing.read(1)


def test_missing_file_is_listed_and_fails_on_read(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_text("file\na.jpg\ngone.jpg\n")
    listing = open_source(path)
    assert listing.table.column("source_size").to_pylist() == [5, None]
    with pytest.raises(ReadError, match=r"gone\.jpg: no such file"):
        listing.read(1)


def test_columns_that_no_store_can_hold_are_left_out(folder: Path) -> None:
    table = pa.table(
        {
            "file": ["a.jpg"],
            "tags": [["x"]],
            "box": [{"x": 1}],
            "took": pa.array([5], pa.duration("s")),
            "kind": pa.array(["cat"]).dictionary_encode(),
            "empty": pa.nulls(1),
        }
    )
    listing = open_source(table)
    assert listing.table.column_names[6:] == ["kind", "empty"]
    assert listing.table.column("kind").type == pa.string()
    assert sorted(name.split("'")[1] for name in listing.skipped) == ["box", "tags", "took"]


@pytest.mark.parametrize(
    "name", ["uri", "content_hash", "source_root", "source_size", "embedding", "embedding_x", "Uri"]
)
def test_reserved_column_names_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match=rf"column name '{name}' .* is reserved"):
        open_source(pa.table({"file": ["a.jpg"], name: ["x"]}))


def test_column_names_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(SourceError, match=r"'Age' and 'age' .* differ in letter case only"):
        open_source(pa.table({"file": ["a.jpg"], "Age": [1], "age": [2]}))


def test_reserved_column_without_a_role_is_refused() -> None:
    table = pa.table({"file": ["a.jpg"], "uri": ["x"]})
    with pytest.raises(SourceError, match=r"column name 'uri' .* is reserved"):
        open_source(table)


def test_column_in_whose_place_another_is_named_is_left_out_and_counted() -> None:
    table = pa.table({"file": ["a.jpg"], "label": ["x"], "species": ["y"]})
    listing = open_source(table, SourceOptions(label="species"))
    assert listing.table.column("label").to_pylist() == ["y"]
    assert listing.skipped == {"column 'label', as label='species' is given": 1}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"picture": ["a"]}, {}, r"an image column, and has \['picture'\]"),
        ({"file": ["a"]}, {"image": "fiel"}, "did you mean 'file'"),
        ({"file": ["a"], "species": ["b"]}, {"label": "specie"}, r"label=.*did you mean 'species'"),
        ({"file": [1]}, {}, "got int64"),
        ({"file": ["a"], "label": [[["b"]]]}, {}, "label column"),
    ],
)
def test_wrong_columns_are_refused(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(pa.table(columns), SourceOptions(**options))


@pytest.mark.parametrize("suffix", WRITERS)
def test_invalid_table_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b'a,b\n"\xff\xfe\n{"')
    with pytest.raises(SourceError, match="broken"):
        open_source(path)


def test_repeated_columns_and_ids_are_refused(folder: Path) -> None:
    path = folder / "labels.csv"
    path.write_text("file,x,x\na.jpg,1,2\n")
    with pytest.raises(SourceError, match="'x' occurs more than once"):
        open_source(path)
    path.write_text("file\n" + "a.jpg\nb.jpg\n" * 2 + "c.jpg\n")
    with pytest.raises(
        DuplicateIdError, match=r"labels\.csv' must be unique, and 2 occur more than once: 'a\.jpg', 'b\.jpg';"
    ):
        open_source(path)


def test_read_table_refuses_other_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.ods").touch()
    with pytest.raises(SourceError, match=r"\.csv, \.tsv, \.parquet"):
        read_table(str(tmp_path / "a.ods"))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "*.parquet"])
def test_table_in_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this filesystem has only UTF-8 names")
    for suffix in ("csv", "parquet"):
        (folder / f"a.{suffix}").touch()
    with pytest.raises(SourceError, match="cannot read the table"):
        open_source(folder / name)
