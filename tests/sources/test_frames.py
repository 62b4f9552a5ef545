"""Types of columns: what is converted, what is refused with the column and the row, and what is left out."""

from __future__ import annotations

import decimal
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpipe.backbones.options import BackboneOptions
from embedpipe.errors import SourceError, StoreError
from embedpipe.sources import open_source
from embedpipe.store.schema import storable

UUIDS = [uuid.UUID(int=1), uuid.UUID(int=2)]
UUID_COLUMN = pa.array([id.bytes for id in UUIDS], pa.uuid())
RUNS = pa.RunEndEncodedArray.from_arrays([1, 2], ["a", "b"])


def stored(frame: Any) -> dict[str, list[Any]]:
    """Return the columns of a frame of texts as a store holds them."""
    return dict(storable(open_source(frame, modality="text").table).to_pydict())


@pytest.mark.parametrize("role", ["id", "label", "split", "x"])
@pytest.mark.parametrize(
    ("column", "values"),
    [
        (UUID_COLUMN, [str(id) for id in UUIDS]),
        (RUNS, ["a", "b"]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"]),
        (pl.Series(["a", "b"], dtype=pl.Enum(["b", "a"])), ["a", "b"]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pa.array(["{}", "[]"], pa.json_()), ["{}", "[]"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    ],
    ids=["uuid", "runs", "categorical", "enum", "pandas", "json", "view"],
)
def test_types_of_text_become_text(role: str, column: Any, values: list[str]) -> None:
    make: Any = {pl.Series: pl.DataFrame, pd.Categorical: pd.DataFrame}.get(type(column), pa.table)
    assert stored(make({"text": ["t", "u"], role: column}))[role] == values


def test_categories_are_texts_and_paths_are_paths(tmp_path: Path) -> None:
    listing = open_source(pl.DataFrame({"text": pl.Series(["t", "u"], dtype=pl.Categorical)}), modality="text")
    assert [listing.read(0), listing.read(1)] == ["t", "u"]
    (tmp_path / "a.jpg").write_bytes(b"a")
    assert open_source(pd.DataFrame({"file": [tmp_path / "a.jpg"]})).read(0) == b"a"


def test_ids_of_unsigned_integers_keep_all_digits() -> None:
    assert stored(pa.table({"text": ["t"], "id": pa.array([2**64 - 1], pa.uint64())}))["id"] == [str(2**64 - 1)]


@pytest.mark.parametrize("empty", [[None, None], [float("nan")] * 2, ["", " "]])
def test_a_column_without_labels_is_missing(empty: list[Any]) -> None:
    assert (
        open_source(pd.DataFrame({"text": ["t", "u"], "label": empty}), modality="text").table["label"].null_count == 2
    )


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", 1], "one type, and holds str in row 1, int in row 2"),
        ([None, "a", 1.5], "one type, and holds str in row 2, float in row 3"),
        (pd.Series(["a", "b\ud83d"], dtype=object), "row 2 has half of a surrogate pair"),
        ([object(), None], "row 1 holds <object object"),
        ([1, 2**70], "row 2 holds 1180591620717411303424 of type int"),
        ([1 + 2j, 0], "row 1 holds .* of type complex"),
        (pd.Categorical(["a", 1]), "one type, and holds str in row 1, int in row 2"),
        (np.array([1, 2**63], np.uint64), r"row 2 of 2 does not \(9223372036854775808; type uint64\)"),
        (pd.array([uuid.UUID(int=1), "a"], dtype=object), "row 1 holds UUID|one type"),
    ],
)
@pytest.mark.parametrize("role", ["label", "x"])
def test_what_has_no_type_is_refused_with_column_and_row(column: Any, message: str, role: str) -> None:
    frame = pd.DataFrame({"text": ["t"] * len(column), role: column})
    with pytest.raises(SourceError, match=f"column '{role}' must hold .*{message}"):
        open_source(frame, modality="text")


def test_doubled_columns_and_wide_integers_of_frames_are_refused() -> None:
    with pytest.raises(SourceError, match="'text' occurs more than once"):
        open_source(pd.DataFrame([["a", "b"]], columns=["text", "text"]), modality="text")
    with pytest.raises(SourceError, match="column 'x' must hold"):
        open_source(pl.DataFrame({"text": ["t"], "x": pl.Series([2**100], dtype=pl.Int128)}), modality="text")


def test_types_that_no_store_holds_are_left_out_and_counted() -> None:
    frame = pd.DataFrame({"text": ["t", "u"], "x": pd.period_range("2020", periods=2, freq="D")})
    assert list(open_source(frame, modality="text").skipped) == [
        "column 'x' (extension<pandas.period<ArrowPeriodType>>)"
    ]


@pytest.mark.parametrize("kind", ["frame", "parquet", "csv", "csv of csv"])
def test_an_index_of_pandas_without_a_name_is_left_out(kind: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["t", "u", "v"], "stars": [1, 2, 3]}).iloc[[2, 0, 1]]
    source: Any = frame
    if kind == "parquet":
        frame.to_parquet(source := tmp_path / "t.parquet")
    if kind.startswith("csv"):
        frame.to_csv(source := tmp_path / "t.csv")
    if kind == "csv of csv":
        pd.read_csv(source).to_csv(source, index=False)
    listing = open_source(source, modality="text")
    assert listing.table["stars"].to_pylist() == [3, 1, 2]
    assert not [name for name in listing.table.column_names if "ndex" in name or "Unnamed" in name or not name]
    (left_out,) = listing.skipped.items()
    assert left_out[0].startswith("index without a name (column '")
    assert left_out[1] == 1


def test_an_index_with_a_name_is_a_column_and_may_be_the_id(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["t", "u"], "id": ["b", "a"], "day": [4, 9]})
    assert stored(frame.set_index("id"))["id"] == ["b", "a"]
    assert stored(frame.drop(columns="id").set_index("day"))["day"] == [4, 9]
    frame.set_index("id").to_parquet(tmp_path / "t.parquet")
    assert open_source(tmp_path / "t.parquet", modality="text").table["id"].to_pylist() == ["b", "a"]
    (tmp_path / "names.csv").write_text(",text\nfirst,t\nsecond,u\n")
    assert stored(tmp_path / "names.csv")[""] == ["first", "second"]


def test_text_of_a_file_that_is_not_utf_8_is_refused_with_column_and_row(tmp_path: Path) -> None:
    broken = pa.array([b"ok", b"\xff"]).view(pa.string())
    pq.write_table(pa.table({"text": ["t", "u"], "label": broken}), tmp_path / "t.parquet")
    with pytest.raises(SourceError, match=r"column 'label' must hold string, and row 2 of 2 does not \(b'\\xff'"):
        open_source(tmp_path / "t.parquet", modality="text")


def test_times_beyond_the_range_of_a_store_are_refused_and_not_wrapped() -> None:
    with pytest.raises(StoreError, match="column 'x'"):
        stored(pa.table({"text": ["t"], "x": pa.array([2**62], pa.timestamp("s"))}))


def test_decimals_keep_their_digits() -> None:
    price = [decimal.Decimal("1.10")]
    assert stored(pa.table({"text": ["t"], "x": pa.array(price)}))["x"] == price


def test_layers_may_be_a_list() -> None:
    assert BackboneOptions(layer=["features"]).layer == ("features",)  # type: ignore[arg-type]


def test_what_a_store_holds_in_another_form_is_reported() -> None:
    times = pd.date_range("2024-07-01", periods=2, tz="Europe/Berlin")
    frame = pd.DataFrame({"text": ["t", "u"], "when": times, "x": np.float16([1, 2]), "utc": times.tz_convert("UTC")})
    assert open_source(frame, modality="text").notes == (
        "the table: times of column 'when' (Europe/Berlin) are stored in UTC",
        "the table: column 'x' of float16 is stored as float32",
    )
