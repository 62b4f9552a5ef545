"""Filters: the rows that DuckDB's WHERE would give; everything else is refused, and says why."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import clusters, make_store

from embedpipe import FeatureStore
from embedpipe.errors import UsageError, command_line
from embedpipe.querying.filters import rows_where

ROWS = 120
TEXTS = ["train", "test", "Train", "it's", "a%b", "a_b", "a\\b", "a\nb", "É", "é", "", "10", None]
NUMBERS = [-3, 0, 1, 2, 500, 501, 2**53 + 1, None]
FRACTIONS = [-1.5, 0.0, 0.1, 0.9, 500.5, 1e300, math.inf, None]
DATES = [date(2024, 1, 1), date(2024, 5, 1), date(1969, 12, 31), None]
TIMES = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 5, 1, 10, 30, tzinfo=UTC), None]
COLUMNS: dict[str, tuple[list[Any], pa.DataType]] = {
    "split": (TEXTS, pa.string()),
    "my text": (TEXTS, pa.string()),
    "width": (NUMBERS, pa.int64()),
    "small": ([-3, 0, 1, 2, 100, None], pa.int16()),
    "score": (FRACTIONS, pa.float64()),
    "confidence": ([-1.5, 0.0, 0.1, 0.9, 500.5, None], pa.float32()),
    "price": ([Decimal("9.99"), Decimal("0.10"), Decimal("500.00"), None], pa.decimal128(10, 2)),
    "flag": ([True, False, None], pa.bool_()),
    "day": (DATES, pa.date32()),
    "taken": (TIMES, pa.timestamp("us", tz="UTC")),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    rng = np.random.default_rng(0)
    columns = {
        name: pa.array([values[i] for i in rng.integers(0, len(values), ROWS)], type_)
        for name, (values, type_) in COLUMNS.items()
    }
    return make_store(tmp_path_factory.mktemp("filters") / "s", clusters(ROWS)[0], **columns)


@pytest.fixture(scope="module")
def by_duckdb(store: FeatureStore) -> Callable[[str], list[bool]]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("rows", store.to_arrow(["id", *COLUMNS]))

    def where(condition: str) -> list[bool]:
        answers = connection.execute(f"SELECT ({condition}) IS TRUE FROM rows ORDER BY id").fetchall()
        return [passes for (passes,) in answers]

    return where


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


texts = st.sampled_from(["split", '"my text"', "SPLIT"])
text_values = st.sampled_from([quoted(text) for text in TEXTS if text is not None] + ["NULL"])
integers = st.sampled_from(["width", "small"])
integer_values = st.sampled_from(["-3", "0", "1", "2", "500", "501", str(2**53 + 1), "NULL", "1.5", "500.5"])
fractions = st.sampled_from(["score", "confidence", "price"])
fraction_values = st.sampled_from(["-1.5", "0", "0.1", "0.9", "9.99", "500.5", "1e300", "NULL", ".5"])
days = st.sampled_from(["day", "taken"])
day_values = st.sampled_from(
    ["'2024-01-01'", "DATE '2024-05-01'", "TIMESTAMP '2024-05-01 10:30'", "TIMESTAMPTZ '2024-05-01 12:30:00+02:00'"]
)
operators = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">=", "=="])
patterns = st.sampled_from([quoted(p) for p in ["tr%", "%", "", "a_b", "%N", "a\\b", "%é%", "t__t", "a%b"]])
kinds = [(texts, text_values), (integers, integer_values), (fractions, fraction_values), (days, day_values)]
sums = st.one_of(
    st.builds("small {} {}".format, st.sampled_from("+-*"), st.sampled_from(["small", "2", "-1", "1.5"])),
    st.just("(small + 1) * 2 - small"),
    st.just("-small / 4"),
    st.just("small * 0.5 + confidence"),
)


def comparisons(columns: st.SearchStrategy[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    either = columns | values
    return st.one_of(
        st.builds("{} {} {}".format, columns, operators, either),
        st.builds("{} {} {}".format, values, operators, columns),
        st.builds("{} {} {} AND {}".format, columns, st.sampled_from(["BETWEEN", "NOT BETWEEN"]), values, values),
        st.builds(
            "{} {} ({})".format,
            columns,
            st.sampled_from(["IN", "NOT IN"]),
            st.lists(values, min_size=1, max_size=4).map(", ".join),
        ),
        st.builds("{} {}".format, columns, st.sampled_from(["IS NULL", "IS NOT NULL"])),
    )


leaves = st.one_of(
    *(comparisons(columns, values) for columns, values in kinds),
    st.builds("{} {} {}".format, sums, operators, st.sampled_from(["0", "1", "small", "0.5", "width"])),
    st.builds("{} {} {}".format, texts, st.sampled_from(["LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"]), patterns),
    st.builds("split LIKE '{}!%b' ESCAPE '!'".format, st.sampled_from(["a", "", "%"])),
    st.sampled_from(
        ["flag", "NOT flag", "flag = true", "flag IS TRUE", "flag IS NOT FALSE", "true", "NULL", "flag IN (true)"]
    ),
)
conditions = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.builds("({} AND {})".format, parts, parts),
        st.builds("{} OR {}".format, parts, parts),
        st.builds("NOT ({})".format, parts),
    ),
    max_leaves=5,
)


@settings(max_examples=80, deadline=None)
@given(condition=conditions)
def test_rows_are_those_of_duckdb(store: FeatureStore, by_duckdb: Callable[[str], list[bool]], condition: str) -> None:
    assert rows_where(store, condition).tolist() == by_duckdb(condition)


def test_nan_and_division_by_zero_are_null(tmp_path: Path) -> None:
    X = clusters(4)[0]
    store = make_store(tmp_path / "s", X, score=[0.5, math.nan, 2.0, None], n=[0, 1, 2, 4])
    assert rows_where(store, "score > 0").tolist() == [True, False, True, False]
    assert rows_where(store, "NOT score > 0").tolist() == [False] * 4
    assert rows_where(store, "score IS NULL").tolist() == [False, True, False, True]
    assert rows_where(store, "4 / n > 1").tolist() == [False, True, True, False]
    assert rows_where(store, "4 / n IS NULL").tolist() == [True, False, False, False]


def test_mask_is_in_id_order_and_of_every_file(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", clusters(6)[0], n=[5, 4, 3, 2, 1, 0])
    rows = store.to_arrow().slice(2, 1)
    store.remove(["row-002"])
    store.write(rows)  # comes last in the files
    assert rows_where(store.refresh(), "n >= 3").tolist() == [True, True, True, False, False, False]


def test_long_lists_and_chains(store: FeatureStore, by_duckdb: Callable[[str], list[bool]]) -> None:
    chain = " OR ".join(f"width = {i} AND split = 't'" for i in range(700)) + " OR split = 'train'"
    assert rows_where(store, chain).tolist() == by_duckdb("split = 'train'")
    listed = f"split IN ({', '.join(quoted(str(i)) for i in range(1000))})"
    assert rows_where(store, listed).tolist() == by_duckdb("split = '10'")
    numbers = ", ".join(map(str, range(15_000)))  # as many comparisons end the process in Arrow
    assert rows_where(store, f"width IN ({numbers})").tolist() == by_duckdb("width BETWEEN 0 AND 14999")
    assert rows_where(store, f"score NOT IN ({numbers}, -0.0)").tolist() == by_duckdb("score NOT IN (0, 1, 2, 500)")
    large = "score IN (0.5, 9223372036854775807)"  # which no float64 is
    assert rows_where(store, large).tolist() == by_duckdb(large)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("wdith > 500", r"has no column 'wdith' \(where\); did you mean 'width'\? Available: id, uri, "),
        ("split = train", "A text stands in single quotes: 'train'"),
        ('split = "train"', "A text stands in single quotes: 'train'"),
        (
            "split > 500",
            "split, which is text, with 500, which is a number: write '500' to compare texts",
        ),
        (
            "width > '500'",
            "width, which is a number, with '500', which is text: write 500 without quotes",
        ),
        ("width = 'wide'", "cannot compare width, which is a number, with 'wide', which is text$"),
        ("width IN (1, 'b')", "cannot compare width, which is a number, with 'b', which is text"),
        ("flag = 1", "cannot compare flag, which is true or false, with 1, which is a number"),
        ("day > 'May'", "'May' must be a date or time such as '2024-05-01' or '2024-05-01 10:30', in UTC"),
        ("day > 20240501", "cannot compare day, which is a date, with 20240501, which is a number"),
        ("width", "must be true or false for each row, got width, which is a number: compare it with a value"),
        ("NOT split", "got split, which is text"),
        ("width LIKE '5%'", "LIKE must be of text, and width is a number"),
        ('split LIKE "my text"', "LIKE must be followed by a pattern in single quotes, got my text"),
        ("split + 1 > 2", "split \\+ 1 must be of numbers, and split is text"),
        ("-split = 1", "-split must be of a number, and split is text"),
        ("embedding = 1", "column 'embedding' holds vectors"),
        ("width IS 1", "IS must be followed by NULL, true or false, got 1"),
        ("width IN ()", "IN must be followed by values in brackets|cannot be read"),
        ("split LIKE 'a!' ESCAPE '!'", "ESCAPE character must be followed by another one"),
        ("split LIKE 'a' ESCAPE '!!'", "ESCAPE must follow LIKE and name one character"),
        ("width * 9223372036854775807 > 1", "cannot be computed: overflow"),
        ("", "must be a condition such as .*, got 0 characters"),
        ("width > 1 OR " * 10_000 + "flag", "got 130,004 characters"),
        (7, "must be a condition such as .*, got 7"),
        ("flag OR " * 10_000 + "flag", "must join at most 3,000 conditions by AND and OR"),
        ("split = '\udcff'", "must be valid Unicode"),
        ("width >", "it cannot be read at '>', after 'width'"),
        ("width > 1; DROP TABLE rows", "it cannot be read at 'DROP'"),
        ("split = 'train", "it cannot be read"),
        ("(" * 5000 + "flag" + ")" * 5000, "must not be nested so deeply"),
        ("NOT " * 5000 + "flag", "must not be nested so deeply"),
    ],
)
def test_bad_conditions_are_refused(store: FeatureStore, condition: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rows_where(store, condition)


@pytest.mark.parametrize(
    "condition",
    [
        "read_csv('/etc/passwd') IS NULL",
        "glob('*') = 'a'",
        "length(split) > 2",
        "getenv('HOME') = 'a'",
        "(SELECT 1) = 1",
        "width IN (SELECT 1)",
        "EXISTS (SELECT 1)",
        "CASE WHEN flag THEN true END",
        "CAST(split AS INTEGER) = 1",
        "split || 'a' = 'b'",
        "split ~ '.*'",
        "split SIMILAR TO 'a'",
        "width % 2 = 0",
        "width = ?",
        "width = $1",
        "split LIKE ANY ('a', 'b')",
        "width BETWEEN SYMMETRIC 2 AND 1",
        "width > ALL (SELECT 1)",
        "INTERVAL '1 day' IS NULL",
        "CURRENT_DATE > day",
        "split COLLATE nocase = 'a'",
        "split[1] = 'a'",
        "width IS DISTINCT FROM 1",
        "*",
    ],
)
def test_what_is_not_a_comparison_is_refused_by_name(store: FeatureStore, condition: str) -> None:
    with pytest.raises(UsageError, match=r"where takes comparisons, AND, .*, got \w+: "):
        rows_where(store, condition)


@pytest.mark.parametrize("digits", [20, 5000])
def test_numbers_of_any_length_are_compared(store: FeatureStore, digits: int) -> None:
    large = "1" * digits
    assert not rows_where(store, f"width >= {large} OR width IN ({large}, {large}.5)").any()
    assert rows_where(store, f"width = {'0' * digits}500").sum() == rows_where(store, "width = 500").sum() > 0


def test_columns_that_differ_in_capitals_only_are_told_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", clusters(2)[0])
    table = pa.table({"id": store.ids(), "Size": [1, 2], "sizE": [3, 4]})
    for condition in ("Size = 1", "sizE = 3"):
        assert rows_where(store, condition, table).tolist() == [True, False]
    with pytest.raises(UsageError, match=r"column 'size' .where. must be one of 'Size', 'sizE', which differ in"):
        rows_where(store, "size = 1", table)


def test_messages_name_the_option_as_the_command_line_does(store: FeatureStore) -> None:
    with command_line(), pytest.raises(UsageError, match=r"^--where must be true or false"):
        rows_where(store, "width")


@settings(max_examples=150, deadline=None)
@given(
    condition=st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from(
                [*"()'\"=<>!+-*/,.;:[]{}$?@%|~\\ ", "AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "BETWEEN"]
            )
            | st.sampled_from(
                ["width", "split", "flag", "day", "1", "1e999", "'a'", "DATE", "CASE", "SELECT", "CAST", "AS"]
            ),
            max_size=12,
        ).map(" ".join),
    )
)
def test_any_text_is_a_condition_or_refused(store: FeatureStore, condition: str) -> None:
    with contextlib.suppress(UsageError):  # and nothing else
        assert rows_where(store, condition).shape == (ROWS,)
