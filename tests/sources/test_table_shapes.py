"""Shapes of tables and lists as programs write them: shards, wide tables, headers, UTF-16, and hints."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpipe.decoding.signatures import describe_bytes
from embedpipe.errors import DuplicateIdError, ReadError, SourceError
from embedpipe.sources import SourceOptions, open_source, read_uri, root_exists
from embedpipe.sources.column_roles import MOST_COLUMNS

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_shard(path: Path, images: list[bytes], paths: list[str | None], labels: list[Any] | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    rows = [{"bytes": image, "path": name} for image, name in zip(images, paths, strict=True)]
    columns: dict[str, Any] = {"image": pa.array(rows, STRUCT)}
    pq.write_table(pa.table(columns if labels is None else columns | {"label": labels}), path)
    return path


def ids_of(source: Any, **options: Any) -> list[str]:
    return list(open_source(source, SourceOptions(**options)).table.column("id").to_pylist())


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["0.jpg", "0.jpg"], ["row-00000000", "row-00000001"]),
        (["", ""], ["row-00000000", "row-00000001"]),
        ([None, "1.jpg"], ["row-00000000", "1.jpg"]),
        (["", "1.jpg"], ["row-00000000", "1.jpg"]),
        (["0.jpg", "1.jpg"], ["0.jpg", "1.jpg"]),
    ],
)
def test_base_names_are_ids_only_if_they_are_unique(tmp_path: Path, paths: list[Any], ids: list[str]) -> None:
    source = write_shard(tmp_path / "t.parquet", [b"a", b"b"], paths)
    listing = open_source(source)
    assert ids_of(source) == ids
    assert [listing.read(0), listing.read(1), listing.failures] == [b"a", b"b", ()]


@pytest.mark.parametrize("pattern", ["", "/*.parquet", "/train-{00000..00001}.parquet", "/train-0000?.parquet"])
def test_shards_of_a_folder_or_pattern_are_one_source(tmp_path: Path, pattern: str) -> None:
    for shard in range(2):
        images = [f"image {shard} {row}".encode() for row in range(2)]
        write_shard(tmp_path / "data" / f"train-0000{shard}.parquet", images, ["0.jpg", "0.jpg"], [shard, shard])
    (tmp_path / "data" / "README.md").write_text("a data set")
    source = f"{tmp_path}/data{pattern}"
    listing = open_source(source)
    assert ids_of(source) == [f"train-0000{shard}/row-0000000{row}" for shard in range(2) for row in range(2)]
    assert listing.table.column("label").to_pylist() == [0, 0, 1, 1]
    assert [listing.read(row) for row in range(4)] == [b"image 0 0", b"image 0 1", b"image 1 0", b"image 1 1"]
    assert read_uri(listing.table.column("uri")[2].as_py()) == b"image 1 0"
    assert root_exists(listing.root)


def test_shards_of_other_types_are_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "data" / "a.parquet", [b"a"], [None], [1])
    write_shard(tmp_path / "data" / "b.parquet", [b"b"], [None], ["x"])
    with pytest.raises(SourceError, match=r"must have columns of the same types"):
        open_source(tmp_path / "data")


def test_shards_of_texts_have_unique_ids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name} one,x\n{name} two,y\n")
    listing = open_source(f"{tmp_path}/*.csv", modality="text")
    assert listing.table.column("id").to_pylist() == [f"{s}/row-0000000{i}" for s in "ab" for i in range(2)]
    assert listing.read(3) == "b two"


def test_tables_beside_images_or_tar_shards_are_not_the_source(tmp_path: Path) -> None:
    write_shard(tmp_path / "t.parquet", [b"a"], [None])
    (tmp_path / "a.jpg").write_bytes(b"x")
    assert ids_of(tmp_path) == ["a.jpg"]
    (tmp_path / "a.jpg").rename(tmp_path / "00000.tar")
    with pytest.raises(SourceError, match=r"for WebDataset shards pass '.*\*\.tar'"):
        open_source(tmp_path)


def wide(suffix: str, count: int) -> bytes:
    names = ["file", *(f"c{i}" for i in range(count - 1))]
    if suffix == ".jsonl":
        return "".join(json.dumps({"file": "a.jpg", name: 1}) + "\n" for name in names[1:]).encode()
    if suffix == ".parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.table({name: ["a.jpg"] for name in names}), buffer)
        return buffer.getvalue()
    delimiter = "\t" if suffix == ".tsv" else ","
    return f"{delimiter.join(names)}\n{delimiter.join(['a.jpg'] * count)}\n".encode()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_wide_tables_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(wide(suffix, MOST_COLUMNS + 1))
    with pytest.raises(SourceError, match=r"at most 2,000 columns, and .* has 2,0\d\d"):
        open_source(path)


@pytest.mark.parametrize("data", [b"," * 5_000_000, b"file\n" + b"," * 5_000_000, b'"' + b"," * 5_000_000 + b'"\nx\n'])
def test_millions_of_commas_are_refused_at_once(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    start = time.process_time()
    with pytest.raises(SourceError):
        open_source(tmp_path / "t.csv")
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("parts", "labels"),
    [
        (["text,label\na,x\n", "text,label\nb,\n"], ["x", None]),
        (["text,label\na,x\n", "text\nb\n"], ["x", None]),
        (["text,label\na,\n", "text,label\nb,2\n"], [None, 2]),
        (["text,label\na,1\n", "text,label\nb,2.5\n"], [1.0, 2.5]),
    ],
)
def test_the_rows_of_a_part_may_have_no_labels(tmp_path: Path, parts: list[str], labels: list[Any]) -> None:
    for name, text in zip(("test.csv", "train.csv"), parts, strict=True):
        (tmp_path / name).write_text(text)
    table = open_source(f"{tmp_path}/*.csv", modality="text").table
    assert table.column("label").to_pylist() == labels
    assert table.column("id").to_pylist() == ["test/row-00000000", "train/row-00000000"]


def test_parts_whose_labels_are_text_and_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,x\n")
    (tmp_path / "b.csv").write_text("text,label\nb,2\n")
    with pytest.raises(SourceError, match=r"must have columns of the same types: .*label"):
        open_source(f"{tmp_path}/*.csv", modality="text")


def test_commas_in_quotes_do_not_separate_columns(tmp_path: Path) -> None:
    text = ", ".join(["word"] * 5_000)
    (tmp_path / "t.csv").write_text(f'"{text}",x\n')
    listing = open_source(tmp_path / "t.csv", SourceOptions(header="text,label"), "text")
    assert listing.read(0) == text


@pytest.mark.parametrize(
    "header",
    ["Path, Label, Split, ID", " path ,LABEL,split,Id", "FILE_NAME\tlabel\tSplit\tid", "Image;Label;Split;id "],
)
def test_headers_may_have_capitals_and_spaces(tmp_path: Path, header: str) -> None:
    delimiter = next(sign for sign in "\t;," if sign in header)
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "t.csv").write_text(f"{header}\n{delimiter.join(['a.jpg', 'cat', 'train', '007'])}\n")
    listing = open_source(tmp_path / "t.csv")
    row = listing.table.to_pylist()[0]
    assert (row["id"], row["label"], row["split"], listing.read(0)) == ("007", "cat", "train", b"a")


def test_texts_below_a_header_with_spaces_are_read_from_their_uris(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Label, Text\nx,hello\n")
    listing = open_source(tmp_path / "t.csv", modality="text")
    assert listing.read(0) == read_uri(listing.table.column("uri")[0].as_py(), "text") == "hello"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_lists_may_be_utf_16(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "é.jpg").write_bytes(b"e")
    (tmp_path / "l.txt").write_bytes("é.jpg\r\n".encode(encoding))
    listing = open_source(tmp_path / "l.txt")
    assert listing.table.column("id").to_pylist() == ["é.jpg"]
    assert listing.read(0) == b"e"


def test_hints_are_for_what_was_given(tmp_path: Path) -> None:
    folder = tmp_path / "My Photos"
    folder.mkdir()
    (folder / "l.txt").write_text("missing.jpg\n")
    with pytest.raises(ReadError) as missing:
        open_source(folder / "l.txt").read(0)
    assert "modality" not in str(missing.value)
    with pytest.raises(ReadError, match="pass modality='text'"):
        open_source(["win a prize"]).read(0)
    (folder / "l.txt").write_text("a.jpg\na.jpg\n")
    with pytest.raises(DuplicateIdError) as doubled:
        open_source(folder / "l.txt")
    assert "id=" not in str(doubled.value)
    with pytest.raises(SourceError) as wrong:
        open_source(folder / "b.lst")
    assert "did you mean" not in str(wrong.value)
    with pytest.raises(SourceError, match=r"did you mean 'l\.txt'"):
        open_source(folder / "ll.txt")


def test_whole_files_of_other_kinds_are_not_called_damaged() -> None:
    wav, text = b"RIFF\x24\x00\x00\x00WAVEfmt ", b"BMW is the name of a car, and not of a picture"
    assert "damaged" not in describe_bytes(wav)
    assert describe_bytes(text).startswith("text that begins with")
