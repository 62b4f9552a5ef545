"""Tables as files: what each format holds, what spreadsheet programs read, and what is refused."""

from __future__ import annotations

import csv
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embedpipe.errors import MissingExtraError, UsageError
from embedpipe.report import tables, workbook, write_table

FORMULAS = [
    '=HYPERLINK("http://x")',
    "+cmd|' /C calc'!A0",
    "-2+3+cmd",
    "@SUM(A1)",
    "\t=1",
    "\n=1",
    "\uff1d1+1",
    "=\n1+1",
]
NO_FORMULAS = ["-1.5", "+3", "-1e-5", "-", "a=b", "", "plain", "'=quoted", "=", "#N/A", "two\nlines", 'a "b", c']
SUFFIXES = tables.TABLE_SUFFIXES


def some_table() -> pa.Table:
    when = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)
    return pa.table(
        {
            "id": pa.array(["Käse.jpg", "b.jpg", None], pa.large_string()),
            "label": pa.array(["猫", "dog", None]).dictionary_encode(),
            "confidence": [0.25, float("nan"), None],
            "rank": [1, 2**60, None],
            "rejected": [True, False, None],
            "probabilities": [[0.25, 0.75], [float("inf"), 1.0], None],
            "when": pa.array([when, when, None], pa.timestamp("us", tz="UTC")),
            "none": pa.nulls(3),
            "bytes": [b"\x00\xff", b"", None],
        }
    )


def cells(path: Path, sheet: int = 0) -> list[tuple[Any, ...]]:
    book = openpyxl.load_workbook(path, read_only=True)
    rows = list(book.worksheets[sheet].iter_rows(values_only=True))
    book.close()
    return rows


def text_rows(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file, delimiter=delimiter))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_has_the_same_rows(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"id": ["a", "b"], "label": ["x, y", None], "confidence": [0.5, None], "rank": [1, 2]})
    assert write_table(table, tmp_path / f"new/t{suffix.upper()}") == []
    path = tmp_path / f"new/t{suffix.upper()}"
    if suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif suffix == ".xlsx":
        header, *values = cells(path)
        rows = [dict(zip(header, row, strict=True)) for row in values]
    else:
        options = pa.csv.ConvertOptions(strings_can_be_null=True)
        parse = pa.csv.ParseOptions(delimiter=tables.SPREADSHEETS[suffix])
        rows = pa.csv.read_csv(path, parse_options=parse, convert_options=options).to_pylist()
    assert rows == table.to_pylist()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def written(path: Path) -> Path:
    """Write values that no format but Parquet can hold, without a warning; return the path."""
    assert write_table(some_table(), path) == []
    return path


def test_csv_files_hold_lists_bytes_and_infinities_as_text(tmp_path: Path) -> None:
    header, *rows = text_rows(written(tmp_path / "t.csv"))
    assert header == some_table().column_names
    assert rows[0][:6] == ["Käse.jpg", "猫", "0.25", "1", "true", "[0.25, 0.75]"]
    assert (rows[1][5], rows[0][8], rows[2]) == ("[null, 1.0]", "00ff", [""] * 9)


def test_workbooks_hold_lists_large_numbers_and_times_as_text(tmp_path: Path) -> None:
    _, first, second, empty = cells(written(tmp_path / "t.xlsx"))
    assert first[:6] == ("Käse.jpg", "猫", 0.25, 1, True, "[0.25, 0.75]")
    assert second[2:4] == ("nan", str(2**60))
    assert first[6].startswith("2024-02-29 12:00")
    assert not any(empty)


def test_json_lines_hold_infinities_as_null(tmp_path: Path) -> None:
    first, second, _ = map(json.loads, written(tmp_path / "t.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["label"], first["rank"], first["rejected"]) == ("猫", 1, True)
    assert (second["confidence"], second["rank"], second["probabilities"]) == (None, 2**60, [None, 1.0])


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_names_beyond_ascii_begin_with_a_byte_order_mark(tmp_path: Path, suffix: str) -> None:
    for text, marked in (("Käse", True), ("cheese", False)):
        for name, table in (("cells", pa.table({"id": [text, None]})), ("header", pa.table({text: [1]}))):
            write_table(table, tmp_path / f"{name}{suffix}")
            assert (tmp_path / f"{name}{suffix}").read_bytes().startswith(b"\xef\xbb\xbf") is marked


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
def test_no_cell_of_a_spreadsheet_is_a_formula(tmp_path: Path, suffix: str) -> None:
    texts = [*FORMULAS, *NO_FORMULAS]
    table = pa.table({"=id": pa.array(texts).dictionary_encode(), "x": [-0.5] * len(texts)})
    (note,) = write_table(table, tmp_path / f"t{suffix}")
    assert note.startswith(f"{len(FORMULAS) + 1} cells that a spreadsheet would run as formulas got ' in front")
    path = tmp_path / f"t{suffix}"
    header, *rows = cells(path) if suffix == ".xlsx" else text_rows(path, tables.SPREADSHEETS[suffix])
    assert header[0] == "'=id"
    assert [row[0] or "" for row in rows] == [*(f"'{text}" for text in FORMULAS), *NO_FORMULAS]
    assert {float(row[1]) for row in rows} == {-0.5}
    if suffix == ".xlsx":
        book = openpyxl.load_workbook(path)
        assert {cell.data_type for cell in book.active["A"] if cell.value is not None} == {"s"}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_other_formats_hold_formulas_as_they_are(tmp_path: Path, suffix: str) -> None:
    assert write_table(pa.table({"=id": FORMULAS}), tmp_path / f"t{suffix}") == []
    path = tmp_path / f"t{suffix}"
    rows = pq.read_table(path).to_pylist() if suffix == ".parquet" else map(json.loads, path.read_text().splitlines())
    assert [row["=id"] for row in rows] == FORMULAS


def test_a_workbook_escapes_what_xml_cannot_hold_and_cuts_long_texts(tmp_path: Path) -> None:
    long = "a" * (workbook.MAX_CHARACTERS + 1)
    (note,) = write_table(pa.table({"text": ["\x1b[31m\x00", long]}), tmp_path / "t.xlsx")
    assert note == "1 cell cut at 32,767 characters, the most that a cell of .xlsx holds"
    assert [row[0] for row in cells(tmp_path / "t.xlsx")[1:]] == ["\\x1b[31m\\x00", long[:-1]]


def test_a_long_table_goes_on_in_the_next_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbook, "MAX_ROWS", 2)
    write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "t.xlsx")
    assert (cells(tmp_path / "t.xlsx"), cells(tmp_path / "t.xlsx", 1)) == ([("x",), (1,), (2,)], [("x",), (3,)])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_without_rows_has_its_header(tmp_path: Path, suffix: str) -> None:
    write_table(pa.table({"id": pa.array([], pa.string()), "x": pa.array([], pa.float64())}), tmp_path / f"t{suffix}")
    if suffix == ".xlsx":
        assert cells(tmp_path / "t.xlsx") == [("id", "x")]


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"x": [1]})
    with pytest.raises(UsageError, match=r"must end in \.csv, \.tsv, \.parquet, \.jsonl or \.xlsx, got 't\.txt'"):
        write_table(table, "t.txt")
    with pytest.raises(UsageError, match="must not be a folder"):
        tables.check_table(tmp_path / "t.csv") if (tmp_path / "t.csv").mkdir() is None else None
    with pytest.raises(UsageError, match="cannot be the name of a file"):
        tables.check_table(tmp_path / f"{'x' * 300}.csv")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'embedpipe\[xlsx\]'"):
        tables.check_table("t.xlsx")


def test_a_workbook_links_local_files_and_the_web(tmp_path: Path) -> None:
    uris = ["/data/ä.jpg", "https://example.org/b.jpg", "s3://bucket/c.jpg", "javascript:alert(1)", "=cmd|x", None]
    write_table(pa.table({"uri": uris}), tmp_path / "t.xlsx")
    sheet = openpyxl.load_workbook(tmp_path / "t.xlsx").active
    links = [cell.hyperlink and cell.hyperlink.target for cell in sheet["A"][1:]]
    assert links == ["file:///data/%C3%A4.jpg", "https://example.org/b.jpg", None, None, None]
    assert [cell.value for cell in sheet["A"][1:]] == [*uris[:4], "'=cmd|x"]


def test_a_workbook_of_any_characters_can_be_opened(tmp_path: Path) -> None:
    write_table(pa.table({"id\ufffe": ["a\x00b", "\uffff", "\x0b", "\U0010ffff"]}), tmp_path / "t.xlsx")
    assert cells(tmp_path / "t.xlsx") == [("id\\ufffe",), ("a\\x00b",), ("\\uffff",), ("\\x0b",), ("\U0010ffff",)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".xlsx"])
def test_times_after_the_year_9999_are_written(tmp_path: Path, suffix: str) -> None:
    when = pa.array([253_402_300_800, 0, None], pa.int64()).cast(pa.timestamp("s"))
    path = tmp_path / f"t{suffix}"
    write_table(pa.table({"when": when, "day": when.cast(pa.date32())}), path)
    if suffix == ".csv":
        _, *rows = text_rows(path)
    elif suffix == ".jsonl":
        rows = [[*json.loads(line).values()] for line in path.read_text().splitlines()]
    else:
        _, *rows = (list(row) for row in cells(path))
    assert [*map(list, rows[:2])] == [["10000-01-01 00:00:00", "10000-01-01"], ["1970-01-01 00:00:00", "1970-01-01"]]
