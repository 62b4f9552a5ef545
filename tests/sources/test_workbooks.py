"""Tables in .xlsx workbooks: what is read as which type, and what is refused."""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest

from embedpipe.errors import MissingExtraError, SourceError
from embedpipe.report import write_table
from embedpipe.sources import read_labels
from embedpipe.sources.tables import workbooks
from embedpipe.sources.tables.table_files import load_table


def workbook(path: Path, *sheets: list[list[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_cells_are_read_as_those_of_csv(tmp_path: Path) -> None:
    rows = [
        ["id", "label", "size", "share", "when", "good"],
        ["001", "cat", 3, 0.25, datetime.datetime(2024, 2, 29), True],
        [],
        ["002", None, 40, 1.5, datetime.datetime(2024, 2, 29, 12, 30), False],
    ]
    table = load_table(str(workbook(tmp_path / "t.xlsx", rows))).table
    assert table.to_pydict() == {
        "id": ["001", "002"],
        "label": ["cat", None],
        "size": [3, 40],
        "share": [0.25, 1.5],
        "when": ["2024-02-29", "2024-02-29 12:30:00"],
        "good": ["true", "false"],
    }
    assert load_table(str(tmp_path / "t.xlsx"), ["size"]).table.column_names == ["size"]


def test_a_formula_is_its_value_and_runs_nothing(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [["id", "label"], ["a", "=1+1"], ["b", "=cmd|' /C calc'!A0"]])
    with pytest.raises(SourceError, match=r"those in B2, B3 have none: open the workbook in a spreadsheet program"):
        load_table(str(path))  # no program has computed them, and an empty label would clear what is there
    computed = tmp_path / "computed.xlsx"
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(computed, "w") as after:
        for name in before.namelist():
            part = before.read(name)
            if name == "xl/worksheets/sheet1.xml":
                part = part.replace(b"</f><v />", b"</f><v>2</v>", 1).replace(b'<c r="B3">', b'<c r="B3" t="str">')
            after.writestr(name, part)
    assert load_table(str(computed)).table["label"].to_pylist() == [2, None]


def test_what_write_table_writes_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"id": ["ä", "b", "c"], "label": ["x", "y, z", None], "confidence": [0.5, 0.25, None]})
    write_table(table, tmp_path / "t.xlsx")
    assert load_table(str(tmp_path / "t.xlsx")).table.equals(table)
    monkeypatch.setattr("embedpipe.report.workbook.MAX_ROWS", 2)
    write_table(table, tmp_path / "t.xlsx")
    loaded, notes = read_labels(str(tmp_path / "t.xlsx"), "id", "label")
    assert loaded["id"].to_pylist() == ["ä", "b", "c"]
    assert notes == ("t.xlsx: read as numbers: 'confidence'",)


def test_sheets_with_another_header_are_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [["id"], ["a"]], [["other"], ["b"]])
    assert load_table(str(path)).notes == ("t.xlsx: sheets with another header than the first were not read: Sheet1",)


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.xlsx").write_bytes(b"PK no workbook")
    with pytest.raises(SourceError, match="is not a workbook that openpyxl reads"):
        load_table(str(tmp_path / "no.xlsx"))
    with pytest.raises(SourceError, match="first sheet must have a header and rows"):
        load_table(str(workbook(tmp_path / "t.xlsx", [])))
    with pytest.raises(SourceError, match="rows must have at most 1 cells"):
        load_table(str(workbook(tmp_path / "t.xlsx", [["id"], ["a", "b"]])))
    path = workbook(tmp_path / "t.xlsx", [["id"], ["a"], ["b"]])
    monkeypatch.setattr(workbooks, "MAX_ROWS", 2)
    with pytest.raises(SourceError, match="at most 2 rows"):
        load_table(str(path))
    monkeypatch.setattr(workbooks, "MAX_BYTES", 100)
    with pytest.raises(SourceError, match="must unpack to at most 100 bytes"):
        load_table(str(path))
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"is a workbook: .*pip install 'embedpipe\[xlsx\]'"):
        load_table(str(path))


def test_a_row_far_below_the_others_ends_in_an_error(tmp_path: Path) -> None:
    path = workbook(tmp_path / "t.xlsx", [["id"], ["a"]])
    changed = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename.endswith("sheet1.xml"):
                data = data.replace(b'r="2"', b'r="99999999999"').replace(b'r="A2"', b'r="A99999999999"')
            new.writestr(part, data)
    path.write_bytes(changed.getvalue())
    with pytest.raises(SourceError, match=r"must have at most|is not a workbook"):
        load_table(str(path))


def test_a_small_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "t.xlsx", [["id"], ["a"]])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/more.xml", b" " * (1 << 20))
    assert load_table(str(path)).table.num_rows == 1
    monkeypatch.setattr(workbooks, "FREE_BYTES", 1000)
    with pytest.raises(SourceError, match="a workbook of this size must unpack to at most"):
        load_table(str(path))
