"""Labels keep their text: what is read as a number is printed as it was written, or the listing says what changed."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import make_store

from embedpipe.errors import StoreError
from embedpipe.sources import Listing, open_source, read_labels
from embedpipe.sources.columns.numbers import MISSING


def written(path: Path, labels: list[Any], delimiter: str = ",") -> Path:
    """Write labels of texts as CSV, TSV or JSON lines, with every field in quotes."""
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    delimiter = "\t" if path.suffix == ".tsv" else delimiter
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *((row["text"], row["label"]) for row in rows)])
    return path


def labels_of(listing: Listing) -> list[Any]:
    return list(listing.table.column("label").to_pylist())


CODES = [
    ["001", "010"], ["01", "1", "001"], ["1.1", "1.10", "1.2"], ["1.10", "1.11"], ["1E5", "2E3"], ["1e5", "2e3"],
    ["12:30", "9:05"], ["2020-01-01", "2021-12-31"], ["2020-01-01 12:00", "2020-01-01T12:00:00Z"], ["12/05/2020"],
    ["true", "True", "TRUE"], ["yes", "no"], ["True", "False"], ["12345678901234567890", "1"], ["0x1F", "0x10"],
    ["NaN", "null"], ["NA", "NL"], ["nan"], ["inf", "-inf"], ["+5", "5"], ["-0", "0"], ["1_000", "2_000"],
    ["1,234", "5,678"], ["1.", "2."], [".5", ".25"], ["1", "1.0"], ["0.1234567890123456789"], ["5%", "7%"],
    ["None", "Some"], ["Cat", "cat"], ["=1+1"], ["1e400", "1e401"], ["1d", "2f"],
]  # fmt: skip


@pytest.mark.parametrize("labels", CODES, ids=" ".join)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_codes_stay_as_they_are_written(tmp_path: Path, labels: list[str], suffix: str) -> None:
    path = written(tmp_path / f"t{suffix}", labels)
    assert labels_of(open_source(path, modality="text")) == labels
    assert read_labels(str(path), "text", "label").table.column("label").to_pylist() == labels


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["1", "2", "10"], [1, 2, 10]),
        (["0", "-5", "9223372036854775807"], [0, -5, 9223372036854775807]),
        (["0.5", "-1.25", "3.0"], [0.5, -1.25, 3.0]),
        (["1e-05", "1e+16", "0.1"], [1e-05, 1e16, 0.1]),
        ([" 1", "2 "], [1, 2]),
        (["1", "", "3"], [1, None, 3]),
    ],
)
def test_numbers_are_numbers_and_a_note_says_so(tmp_path: Path, labels: list[str], numbers: list[Any]) -> None:
    listing = open_source(written(tmp_path / "t.csv", labels), modality="text")
    assert labels_of(listing) == numbers
    assert listing.notes == ("t.csv: read as numbers: 'label'",)


def test_numbers_that_stay_text_are_reported(tmp_path: Path) -> None:
    listing = open_source(written(tmp_path / "t.csv", ["7", "1.10"]), modality="text")
    (note,) = listing.notes
    assert note == "t.csv: numbers that would not be printed as they are written stay text: 'label' ('1.10')"


def test_missing_numbers_are_counted(tmp_path: Path) -> None:
    listing = open_source(written(tmp_path / "t.csv", ["1", "NA", "2", "NaN"]), modality="text")
    assert labels_of(listing) == [1, None, 2, None]
    assert listing.notes[1] == "t.csv: read as missing: 2 values of column 'label', such as 'NA'"


def test_decimal_commas_of_files_with_semicolons_are_numbers(tmp_path: Path) -> None:
    listing = open_source(written(tmp_path / "t.csv", ["3,5", "2", "-0,25"], ";"), modality="text")
    assert labels_of(listing) == [3.5, 2.0, -0.25]
    assert "t.csv: commas are read as decimal signs: 'label'" in listing.notes
    listing = open_source(written(tmp_path / "t.csv", ["3,50", "2"], ";"), modality="text")
    assert labels_of(listing) == ["3,50", "2"]


def test_numbers_and_booleans_of_json_keep_their_types(tmp_path: Path) -> None:
    for labels in ([1, 2], [0.5, 1.0], [True, False]):
        assert labels_of(open_source(written(tmp_path / "t.jsonl", labels), modality="text")) == labels
    big = [12345678901234567890, 12345678901234567891, 1]
    listing = open_source(written(tmp_path / "t.jsonl", big), modality="text")
    assert labels_of(listing) == [str(number) for number in big]


FRAMES = {"pyarrow": pa.table, "pandas": pd.DataFrame, "polars": pl.DataFrame}


@pytest.mark.parametrize("kind", [*FRAMES, ".csv", ".jsonl", ".parquet"])
def test_empty_labels_are_missing_and_spaces_are_removed(tmp_path: Path, kind: str) -> None:
    data = {"text": ["a", "b", "c", "d"], "label": [" x ", "", "  ", "y"], "split": ["train ", "", "test", "test"]}
    source: Any = tmp_path / f"t{kind}"
    if kind in FRAMES:
        source = FRAMES[kind](data)
    elif kind == ".parquet":
        pq.write_table(pa.table(data), source)
    elif kind == ".jsonl":
        pd.DataFrame(data).to_json(source, orient="records", lines=True)
    else:
        pd.DataFrame(data).to_csv(source, index=False)
    listing = open_source(source, modality="text")
    assert labels_of(listing) == ["x", None, None, "y"]
    assert listing.table.column("split").to_pylist() == ["train", None, "test", "test"]
    assert any("spaces around" in note for note in listing.notes)


def test_labels_that_differ_in_case_only_are_reported(tmp_path: Path) -> None:
    listing = open_source(written(tmp_path / "t.csv", ["Cat", "cat", "dog"]), modality="text")
    assert listing.notes == ("t.csv: 'Cat' and 'cat' of column 'label' differ in letter case only, and are kept apart",)


def test_a_number_column_of_a_store_refuses_codes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", pd.DataFrame([[0.0], [1.0]]).to_numpy(), code=[1, 2])
    with pytest.raises(StoreError, match="'code' holds string values that do not fit"):
        store.label(pa.table({"id": ["row-000"], "code": ["01"]}), label="code", into="code")
    store.label(pa.table({"id": ["row-000"], "code": ["5"]}), label="code", into="code")
    assert store.refresh().to_arrow(["code"]).column(0).to_pylist() == [5, 2]


def test_a_text_column_of_a_store_takes_numbers_as_python_prints_them(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", pd.DataFrame([[0.0], [1.0], [2.0]]).to_numpy(), code=["1.10", "x", "y"])
    values = pa.table({"id": ["row-001", "row-002"], "code": [1.0, 1e-05]})
    store.label(values, label="code", into="code")
    assert store.refresh().to_arrow(["code"]).column(0).to_pylist() == ["1.10", "1.0", "1e-05"]


LABEL = st.one_of(
    st.text(st.sampled_from("0123456789.-+eE:,_ "), max_size=7),
    st.sampled_from([*MISSING, "true", "True", "yes", "2020-01-01", "1.0", "1", "1.10", "inf"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(LABEL, min_size=1, max_size=6), st.sampled_from([".csv", ".tsv", ".jsonl", ";"]))
def test_what_is_stored_is_printed_as_it_was_written_or_reported(labels: list[str], kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / ("t.csv" if kind == ";" else f"t{kind}"), labels, ";" if kind == ";" else ",")
        listing = open_source(path, modality="text")
    for stored, label in zip(labels_of(listing), (label.strip() for label in labels), strict=True):
        if stored is None:
            assert not label or any("read as missing" in note for note in listing.notes)
        elif str(stored) != label:
            assert any("read as numbers: 'label'" in note for note in listing.notes)
            assert float(label.replace(",", ".")) == stored
