"""CSV and TSV: encodings, delimiters, quotes, files without a header line, and unchanged strings."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.errors import SourceError
from embedpipe.sources import Listing, SourceOptions, open_source, read_table, read_uri

SMS = Path(__file__).parents[3] / "shared/data/sms/sms.tsv"
ENGLISH = "It costs “nothing” — only £100 a week, or 90 € in the café at the end of the street.\n"
SWEDISH = "Jag åkte till Göteborg för att träffa min mor på ön, och det är kallt nära havet.\n"


def texts_of(listing: Listing) -> list[object]:
    return [listing.read(row) for row in range(len(listing))]


def opened(path: Path, data: bytes, columns: str | None = None) -> Listing:
    path.write_bytes(data)
    return open_source(path, SourceOptions(header=columns), "text")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_encodings_are_read_without_detection(tmp_path: Path, encoding: str) -> None:
    listing = opened(tmp_path / "t.csv", ("text\n" + ENGLISH.replace(",", "")).encode(encoding))
    assert texts_of(listing) == [ENGLISH.replace(",", "").strip()]
    assert listing.notes == ()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", ENGLISH),
        ("cp1252", SWEDISH),
        ("koi8_r", "Привет, как дела? Это сообщение написано давно. Мы идем домой вечером."),
        ("cp932", "これは日本語のテキストです。文字コードの検出を試しています。"),
    ],
)
def test_other_encodings_are_detected_and_noted(tmp_path: Path, encoding: str, text: str) -> None:
    path = tmp_path / "messages.tsv"
    listing = opened(path, f"n\ttext\n1\t{text.strip()}\n".encode(encoding))
    assert listing.notes[0] == f"messages.tsv: read in the detected encoding {encoding}"
    assert texts_of(listing) == [text.strip()]
    assert read_uri(listing.table.column("uri")[0].as_py(), "text") == text.strip()


def test_few_non_ascii_lines_decide_the_encoding(tmp_path: Path) -> None:
    lines = ["plain words and nothing else"] * 50_000 + ["the prize is £100"]
    listing = opened(tmp_path / "t.csv", "\n".join(["text", *lines]).encode("cp1252"))
    assert listing.read(50_000) == "the prize is £100"


def test_image_table_in_another_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file,label\ncafé.jpg,très agréable à côté de l'église\n".encode("cp1252"))
    listing = open_source(tmp_path / "t.csv")
    assert listing.table.column("id").to_pylist() == ["café.jpg"]
    assert len(listing.notes) == 1


def test_json_lines_must_be_utf_8(tmp_path: Path) -> None:
    listing = opened(tmp_path / "t.jsonl", b'\xef\xbb\xbf{"text": "\xc3\xa9"}\n')
    assert texts_of(listing) == ["é"]
    with pytest.raises(SourceError, match=r"t\.jsonl.*utf-8"):
        opened(tmp_path / "t.jsonl", b'{"text": "\xe9"}\n')


def test_binary_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"t\.csv"):
        opened(tmp_path / "t.csv", b"\xff\xd8\xff\xe0" + bytes(range(256)) * 3)
    with pytest.raises(SourceError, match=r"t\.csv"):
        opened(tmp_path / "t.csv", b"\xff\xfea")


STRAY = {
    "opened and never closed": 'ham\t"hello there\nspam\twin now\n',
    "closed in the middle": 'ham\t"hello" there\nspam\twin now\n',
    "closed some rows later": 'ham\t"hello there\nham\tok\nspam\twin now"\n',
    "whole and elsewhere": 'ham\t"hello"\nham\the said "ok"\n',
}


@pytest.mark.parametrize("data", STRAY.values(), ids=STRAY)
@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
def test_stray_quotes_in_tsv_are_part_of_the_text(tmp_path: Path, data: str, header: bool) -> None:
    given = "label\ttext\n" + data if header else data
    listing = opened(tmp_path / "t.tsv", given.encode(), None if header else "label,text")
    assert texts_of(listing) == [line.split("\t")[1] for line in data.splitlines()]
    assert "read without quoting" in listing.notes[0]
    uris = listing.table.column("uri").to_pylist()
    assert [read_uri(uri, "text") for uri in uris] == texts_of(listing)


def test_regular_quotes_in_tsv_enclose_fields(tmp_path: Path) -> None:
    data = 'label\ttext\nham\t"a ""word"" and\na line"\nspam\tx "y"\n'
    listing = opened(tmp_path / "t.tsv", data.encode())
    assert texts_of(listing) == ['a "word" and\na line', 'x "y"']
    assert listing.notes == ()
    listing = opened(tmp_path / "t.tsv", b'"label"\t"text"\n"ham"\t"a\n\t"\n')
    assert texts_of(listing) == ["a\n\t"]
    listing = opened(tmp_path / "t.tsv", b'label\ttext\nham\t"a\rb"\n')
    assert texts_of(listing) == ["a\rb"]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ('label,text\nham,ok\nham,"hello there\nspam,win now\n', 3),
        ('label,text\nham,"hello" there\n', 2),
        ('label,text\nham,"a\nb"\nham,"hello \\"there\\" you"\n', 4),
    ],
)
def test_unbalanced_quotes_in_csv_are_refused_with_line(tmp_path: Path, data: str, line: int) -> None:
    with pytest.raises(SourceError, match=rf"t\.csv.*line {line}: a quoted field is not closed"):
        opened(tmp_path / "t.csv", data.encode())
    with pytest.raises(SourceError, match=f"line {line}"):
        read_table(str(tmp_path / "t.csv"))


def test_unbalanced_quotes_in_ragged_tsv_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 2: a quoted field is not closed"):
        opened(tmp_path / "t.tsv", b'label\ttext\nham\t"hello\tthere\nham\tok\n')


def test_quoted_fields_over_lines_are_noted(tmp_path: Path) -> None:
    listing = opened(tmp_path / "t.csv", b'label,text\nham,"hello\nspam,there"\n')
    assert texts_of(listing) == ["hello\nspam,there"]
    assert "1 quoted fields span several lines" in listing.notes[0]
    assert opened(tmp_path / "t.csv", b'label,text\nham,"hello\nthere"\n').notes == ()


def test_header_names_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    listing = opened(path, b"007,ham,001\n008,spam,\n", "id, label, text")
    assert listing.table.column("id").to_pylist() == ["007", "008"]
    assert listing.table.column("label").to_pylist() == ["ham", "spam"]
    uri = listing.table.column("uri")[0].as_py()
    assert uri == f"table://id, label, text/text/0::{path}"
    assert listing.read(0) == read_uri(uri, "text") == "001"
    for wrong in ("id,text", "id,label,text,more"):
        with pytest.raises(SourceError, match=r"header must name all 3 columns .* got \d: id,"):
            opened(path, path.read_bytes(), wrong)
    with pytest.raises(SourceError, match="'a' occurs more than once"):
        opened(path, path.read_bytes(), "a,a,text")
    with pytest.raises(SourceError, match="is for CSV and TSV files"):
        opened(tmp_path / "t.jsonl", b'{"text": "x"}', "text")
    pd.DataFrame({"text": ["x"]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(SourceError, match="is for CSV and TSV files"):
        open_source(tmp_path / "t.parquet", SourceOptions(header="text"), "text")


def test_header_works_for_images(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a.jpg,cat\nb.jpg,dog\n")
    listing = open_source(tmp_path / "t.csv", SourceOptions(header="file,label"))
    assert listing.table.column("id").to_pylist() == ["a.jpg", "b.jpg"]


def test_missing_header_line_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\['ham', 'Go.{38}\.\.\.'\].*header='A,B'"):
        opened(tmp_path / "t.tsv", b"ham\tGo" + b"o" * 100 + b"\nspam\tx\n")


@pytest.mark.skipif(not SMS.exists(), reason="needs ../shared/data/sms")
def test_sms_messages_keep_every_row_and_quote() -> None:
    listing = open_source(SMS, SourceOptions(header="label,text"), "text")
    lines = SMS.read_bytes().decode().removesuffix("\n").split("\n")
    assert len(listing) == 5574
    assert texts_of(listing) == [line.split("\t", 1)[1] for line in lines]
    assert listing.table.column("label").to_pylist() == [line.split("\t", 1)[0] for line in lines]
    assert listing.notes == ("sms.tsv: read without quoting, as a quote on line 283 is part of the text",)


STRINGS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=20)


@settings(deadline=None, max_examples=60)
@given(STRINGS, st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]))
def test_strings_round_trip(strings: list[str], suffix: str) -> None:
    frame = pd.DataFrame({"n": range(len(strings)), "text": strings})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"t{suffix}"
        if suffix == ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        elif suffix == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t", quoting=csv.QUOTE_NONNUMERIC)
        listing = open_source(path, modality="text")
        assert texts_of(listing) == strings


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text("ab\"\t,\n\r'"), min_size=1, max_size=8), st.sampled_from([",", "\t"]))
def test_no_quote_is_lost_without_a_note(strings: list[str], delimiter: str) -> None:
    """A file written without quoting is read unchanged, is refused, or gets a note."""
    fields = ["".join(c for c in text if c not in f"\r\n{delimiter}") for text in strings]
    data = "".join(f"{row}{delimiter}{text}\n" for row, text in enumerate(fields))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("t.csv" if delimiter == "," else "t.tsv")
        try:
            listing = opened(path, data.encode(), "n,text")
        except SourceError:
            return
        assert listing.notes or len(listing) == len(fields)


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_other_delimiters_of_csv_are_noted(tmp_path: Path, delimiter: str, word: str) -> None:
    rows = [["a", 'says "hi", and goes', "3,5"], ["b", f"two{delimiter} parts\nand lines", "1"]]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
    writer.writerows([["id", "text", "n"], *rows])
    listing = opened(tmp_path / "t.csv", buffer.getvalue().encode("utf-8-sig"))
    assert texts_of(listing) == [row[1] for row in rows]
    assert any(f"columns are separated by {word}" in note for note in listing.notes)
    headless = opened(tmp_path / "h.csv", delimiter.join(["a", "text, with a comma", "3"]).encode(), "id,text,n")
    assert texts_of(headless) == ["text, with a comma"]
