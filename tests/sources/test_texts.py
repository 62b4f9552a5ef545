"""Sources of texts: tables, folders, files, lists, and refused sources."""

from __future__ import annotations

import concurrent.futures
import csv
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import EmailBytes, Listing, SourceOptions, list_items, open_source, read_uri
from embedpipe.sources.listing import COLUMNS

TEXTS = ["Grüße aus Köln", 'he said "no", twice', "two\nlines\tand a tab", "007", "NA", "1e5", "2020-01-01", "🎉 שלום"]
TABLE = {"body": TEXTS, "label": ["ham", "spam"] * 4, "age": list(range(8))}
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, date_format="iso"),
    ".ndjson": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, row_group_size=3),
}


def texts_of(listing: Listing) -> list[object]:
    return [listing.read(row) for row in range(len(listing))]


@pytest.mark.parametrize("suffix", WRITERS)
def test_table_files_with_texts_are_listed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"messages{suffix}"
    WRITERS[suffix](pd.DataFrame(TABLE), path)
    listing = open_source(path, modality="text")
    table = listing.table
    assert table.column_names == [*COLUMNS, "age"]
    assert table.column("id").to_pylist() == [f"row-{row:08d}" for row in range(8)]
    assert table.column("label").to_pylist() == TABLE["label"]
    notes = (f"{path.name}: read as numbers: 'age'",) if suffix in (".csv", ".tsv") else ()
    assert (listing.root, listing.notes, listing.failures) == (str(path), notes, ())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(listing.read, range(8))) == TEXTS
    uris = table.column("uri").to_pylist()
    scheme = "parquet" if suffix == ".parquet" else "table"
    assert uris[3] == f"{scheme}://body/3::{path}"
    assert [read_uri(uri, "text") for uri in uris] == TEXTS
    assert set(table.column("source_modified").to_pylist()) == {path.stat().st_mtime_ns}
    sizes = [None] * 8 if suffix == ".parquet" else [len(text.encode()) for text in TEXTS]
    assert table.column("source_size").to_pylist() == sizes


@pytest.mark.parametrize("make", [pa.table, pd.DataFrame, pl.DataFrame], ids=["pyarrow", "pandas", "polars"])
def test_frames_with_texts_are_listed(make: Callable[[Any], Any]) -> None:
    listing = open_source(make(TABLE), modality="text")
    assert listing.root == "memory"
    assert texts_of(listing) == TEXTS
    assert listing.table.column("uri").null_count == listing.table.column("source_size").null_count == 8
    assert listing.table.column_names == [*COLUMNS, "age"]


@pytest.mark.parametrize(
    "type",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())],
    ids=str,
)
@pytest.mark.parametrize("in_file", [True, False], ids=["file", "frame"])
def test_string_types_are_read(tmp_path: Path, type: pa.DataType, in_file: bool) -> None:
    strings = pa.array(["one", None, "", "two"])
    table = pa.table({"text": strings.dictionary_encode() if pa.types.is_dictionary(type) else strings.cast(type)})
    pq.write_table(table, tmp_path / "t.parquet")
    listing = open_source(tmp_path / "t.parquet" if in_file else table, modality="text")
    assert (listing.read(0), listing.read(3)) == ("one", "two")
    for row in (1, 2):
        with pytest.raises(ReadError, match="the row has no text"):
            listing.read(row)


@pytest.mark.parametrize("type", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)], ids=str)
def test_bytes_of_texts_are_kept(tmp_path: Path, type: pa.DataType) -> None:
    table = pa.table({"text": pa.array([b"one", b"\xe9\xe8\xe0", None], type)})
    pq.write_table(table, tmp_path / "t.parquet")
    for source in (table, tmp_path / "t.parquet"):
        listing = open_source(source, modality="text")
        assert (listing.read(0), listing.read(1)) == (b"one", b"\xe9\xe8\xe0")
        with pytest.raises(ReadError, match="no text"):
            listing.read(2)


def test_text_column_is_the_named_or_first_default() -> None:
    table = pa.table({"review": ["r"], "body": ["b"], "title": ["t"]})
    listing = open_source(table, modality="text")
    assert listing.read(0) == "b"
    assert listing.table.column_names[6:] == ["review", "title"]
    assert open_source(table, SourceOptions(text="title"), "text").read(0) == "t"


def test_strings_of_csv_and_json_are_unchanged(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,words,n\n007,1,1\n08,true,2\n9,2020-01-01,3\nx,,4\n")
    listing = open_source(tmp_path / "t.csv", SourceOptions(text="words"), "text")
    assert listing.table.column("id").to_pylist() == ["007", "08", "9", "x"]
    assert listing.table.column("n").type == pa.int64()
    assert [listing.read(row) for row in range(3)] == ["1", "true", "2020-01-01"]
    with pytest.raises(ReadError, match="no text"):
        listing.read(3)
    (tmp_path / "t.jsonl").write_text(
        '{"id": "2020-01-01", "text": "2020-01-01"}\n{"id": "2020-01-02", "text": null}\n'
    )
    listing = open_source(tmp_path / "t.jsonl", modality="text")
    assert (listing.table.column("id")[0].as_py(), listing.read(0)) == ("2020-01-01", "2020-01-01")


def test_column_of_nulls_is_listed(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": null}\n{"text": null}\n')
    listing = open_source(tmp_path / "t.jsonl", modality="text")
    assert len(listing) == 2
    with pytest.raises(ReadError, match="no text"):
        listing.read(1)


def test_rows_without_an_id_fail(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text\na,one\n,two\nc,three\n")
    listing = open_source(tmp_path / "t.csv", modality="text")
    assert texts_of(listing) == ["one", "three"]
    assert listing.failures[0].id == "row 2 of t.csv"
    assert listing.failures[0].uri == f"table://text/1::{tmp_path / 't.csv'}"


@pytest.mark.parametrize("name", ["text", "Text", "TEXT", "uri", "embedding"])
def test_reserved_column_names_for_texts_are_refused(name: str) -> None:
    with pytest.raises(SourceError, match=rf"column name '{name}' .* is reserved"):
        open_source(pa.table({"body": ["x"], name: ["y"]}), SourceOptions(text="body"), "text")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"words": ["a"]}, {}, r"a text column, and has \['words'\]: name one \(text="),
        ({"text": ["a"]}, {"text": "texts"}, r"text=.*did you mean 'text'"),
        ({"text": [1]}, {}, "text column 'text' of 'the table' must hold strings or bytes, got int64"),
        ({"text": [["a"]]}, {}, "got list"),
        ({"text": ["a"]}, {"image": "text"}, "image='text' needs a backbone for images.*give text="),
        ({"text": ["a"]}, {"header": "a"}, "is for CSV and TSV files"),
    ],
)
def test_wrong_columns_for_texts_are_refused(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(pa.table(columns), SourceOptions(**options), "text")


def test_text_option_is_refused_for_images() -> None:
    with pytest.raises(SourceError, match=r"text='body' needs a backbone for texts.*give image=..."):
        open_source(pa.table({"file": ["a.jpg"], "body": ["x"]}), SourceOptions(text="body"))


def test_cells_of_a_changed_table_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a/b,50%\none,x\n")
    uri = open_source(path, SourceOptions(text="a/b"), "text").table.column("uri")[0].as_py()
    assert uri == f"table://a%2Fb/0::{path}"
    assert read_uri(uri, "text") == "one"
    path.write_text("a/b,50%\nanother,x\n")
    assert read_uri(uri, "text") == "another"
    assert read_uri(f"table://50%25/0::{path}", "text") == "x"
    with pytest.raises(ReadError, match="row 7"):
        read_uri(f"table://a%2Fb/7::{path}", "text")
    with pytest.raises(ReadError, match="row 0"):
        read_uri(f"table://gone/0::{path}", "text")
    with pytest.raises(ReadError, match=r"gone\.csv"):
        read_uri(f"table://a/0::{tmp_path / 'gone.csv'}", "text")
    with pytest.raises(ReadError, match="a uri of a"):
        read_uri("table://a", "text")


def test_folders_of_texts_are_listed(tmp_path: Path) -> None:
    for name in ("train/spam/a.txt", "train/ham/b.EML", "test/ham/c.md", "test/ham/d.text", "test/x.jpg", ".h.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "train/ham/gone.txt").symlink_to("nowhere")
    listing = open_source(tmp_path, modality="text")
    rows = list(zip(*(listing.table.column(name).to_pylist() for name in ("id", "split", "label")), strict=True))
    assert rows == [
        ("test/ham/c.md", "test", "ham"),
        ("test/ham/d.text", "test", "ham"),
        ("train/ham/b.EML", "train", "ham"),
        ("train/spam/a.txt", "train", "spam"),
    ]
    assert texts_of(listing) == [id.encode() for id, _, _ in rows]
    uri = listing.table.column("uri")[2].as_py()
    assert [type(payload) for payload in (listing.read(2), read_uri(uri, "text"), listing.read(0), read_uri(uri))] == [
        EmailBytes,
        EmailBytes,
        bytes,
        bytes,
    ]
    assert listing.skipped == {"hidden": 1, ".jpg": 1}
    assert listing.failures[0].id == "train/ham/gone.txt"


def test_folder_without_texts_lists_its_file_types(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"no texts in .*found 1 \.jpg"):
        open_source(tmp_path, modality="text")
    (tmp_path / "t.csv").touch()
    with pytest.raises(SourceError, match=r"pass the \.csv file itself if it lists the texts"):
        open_source(tmp_path, modality="text")
    (tmp_path / "b.txt").mkdir()
    listing = open_source(tmp_path, modality="text")
    assert "with the suffix of a text" in listing.failures[0].message


def test_single_texts_and_file_lists_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.eml").write_text("Subject: second")
    (tmp_path / "names.lst").write_text("a.txt\nb.eml\n")
    single = open_source(tmp_path / "a.txt", modality="text")
    assert (single.table.column("id").to_pylist(), single.read(0)) == (["a.txt"], b"first")
    assert isinstance(open_source(tmp_path / "b.eml", modality="text").read(0), EmailBytes)
    listed = open_source(str(tmp_path / "names.lst"), modality="text")
    assert listed.table.column("id").to_pylist() == ["a.txt", "b.eml"]
    assert (listed.read(0), listed.read(1)) == (b"first", EmailBytes(b"Subject: second"))
    assert isinstance(listed.read(1), EmailBytes)
    (tmp_path / "names.lst").write_text("\n")
    with pytest.raises(SourceError, match="of a text per line"):
        open_source(tmp_path / "names.lst", modality="text")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "*.tar"])
def test_tar_files_are_refused_for_texts(tmp_path: Path, name: str) -> None:
    tarfile.open(tmp_path / "a.tar", "w").close()
    with pytest.raises(SourceError, match="unpack it to a folder, or write a table"):
        open_source(str(tmp_path / name), modality="text")


def test_other_file_types_are_refused_for_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"must be a folder, or a file with a suffix in .*\.lst, \.txt.*\.eml"):
        open_source(tmp_path / "a.jpg", modality="text")


SEQUENCES: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "string array": np.array,
    "object array": lambda texts: np.array(texts, object),
    "pandas": pd.Series,
    "pandas string": lambda texts: pd.Series(texts, dtype="string"),
    "pandas category": lambda texts: pd.Series(texts, dtype="category"),
    "polars": pl.Series,
    "arrow": pa.array,
    "arrow view": lambda texts: pa.array(texts, pa.string_view()),
    "arrow dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "arrow chunks": lambda texts: pa.chunked_array([texts[:3], texts[3:]]),
}


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES)
def test_sequences_of_texts_are_listed(make: Callable[[list[str]], Any]) -> None:
    listing = open_source(make(TEXTS), modality="text")
    assert listing.root == "memory"
    assert texts_of(listing) == TEXTS
    assert listing.table.column("id").to_pylist() == [f"{row:08d}" for row in range(8)]
    assert listing.table.column("uri").null_count == 8
    assert listing.table.schema.names == list(COLUMNS)


def test_string_in_a_list_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("contents")
    assert open_source([str(tmp_path / "a.txt")], modality="text").read(0) == str(tmp_path / "a.txt")


def test_texts_files_and_emails_can_be_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(b"mail")
    items = ["text", tmp_path / "a.eml", b"bytes", EmailBytes(b"Subject: x"), None]
    listing = open_source(items, modality="text")
    assert listing.table.column("id").to_pylist() == [
        "00000000",
        str(tmp_path / "a.eml"),
        "00000002",
        "00000003",
        "00000004",
    ]
    payloads = [listing.read(row) for row in range(4)]
    assert payloads == ["text", b"mail", b"bytes", b"Subject: x"]
    assert [type(payload) for payload in payloads] == [str, EmailBytes, bytes, EmailBytes]


@pytest.mark.parametrize(
    "items",
    [
        [None],
        [float("nan")],
        [np.float32("nan")],
        [pd.NA],
        [pd.NaT],
        pd.Series(["x", None])[1:],
        pl.Series([None], dtype=pl.String),
    ],
    ids=["None", "NaN", "float32", "NA", "NaT", "pandas", "polars"],
)
def test_missing_texts_fail_on_read(items: Any) -> None:
    listing = open_source(items, modality="text")
    assert len(listing) == 1
    with pytest.raises(ReadError, match="item 0 is"):
        listing.read(0)


def test_given_ids_of_texts_are_used() -> None:
    assert list_items(["a", "b"], ids=["x", "y"], modality="text").table.column("id").to_pylist() == ["x", "y"]


@pytest.mark.parametrize("source", [np.zeros(3), np.zeros((2, 4, 5, 3), np.uint8), 7, b"bytes", {1: 2}], ids=repr)
def test_invalid_sources_of_texts_are_refused(source: object) -> None:
    with pytest.raises(SourceError, match="must be"):
        open_source(source, modality="text")


def test_missing_text_file_fails_on_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file or folder 'Call me now'"):
        open_source("Call me now", modality="text")
    (tmp_path / "a.txt").touch()
    with pytest.raises(ReadError, match="no such file"):
        open_source([tmp_path / "b.txt"], modality="text").read(0)


def test_listing_a_parquet_file_reads_no_texts(tmp_path: Path) -> None:
    path = tmp_path / "big.parquet"
    pq.write_table(
        pa.table({"text": ["x" * 1000] * 50, "n": range(50)}), path, compression="none", use_dictionary=False
    )
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    data[start : start + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    listing = open_source(path, modality="text")
    assert listing.table.column("n").to_pylist() == list(range(50))
    with pytest.raises(ReadError, match="row 3 of"):
        listing.read(3)


def test_large_csv_keeps_every_row(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["text"], *([f'row "{row}",\r\nnext'] for row in range(40_000))])
    listing = open_source(path, modality="text")
    assert len(listing) == 40_000
    assert listing.read(39_999) == 'row "39999",\r\nnext'
    assert listing.table.column("uri")[39_999].as_py() == f"table://text/39999::{path}"


def test_parquet_file_changed_after_listing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["of a", "of b"]}), path)
    listing = open_source(path, modality="text")
    pq.write_table(pa.table({"id": ["b", "a"], "text": ["of b", "of a"]}), tmp_path / "new.parquet")
    os.utime(tmp_path / "new.parquet", ns=(1, 1))
    (tmp_path / "new.parquet").replace(path)
    with pytest.raises(ReadError, match="has changed since its rows were listed"):
        listing.read(0)


def test_invalid_utf8_bytes_are_refused_with_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"text\n" + "naïve café\n".encode() * 20 + b"bad \xe9\n")
    with pytest.raises(SourceError, match=r"UTF-8 with invalid bytes.*line 22"):
        open_source(path, modality="text")


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "x"}\n{"text": "y", "m": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(SourceError, match="line 2 is nested too deeply"):
        open_source(path, modality="text")
