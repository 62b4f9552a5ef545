"""Reading CSV, TSV, Parquet and JSON-lines files as Arrow tables, local or remote."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from embedpipe.errors import MissingExtraError, SourceError
from embedpipe.sources.csv_files import block_size, parse_csv
from embedpipe.sources.encodings import to_utf8
from embedpipe.sources.file_types import TABLE_SUFFIXES, suffix_of
from embedpipe.sources.locations import absolute, open_file, split_location

#: Number of brackets in a line of JSON above which its depth is checked.
_MANY_BRACKETS = 500

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Loaded(NamedTuple):
    """A table, and remarks on how it was read for the user."""

    table: pa.Table
    notes: tuple[str, ...] = ()


def read_table(path: str, columns: Sequence[str] | None = None, text: Sequence[str] = ("id",)) -> pa.Table:
    """Read a whole table file. See `load_table`."""
    return load_table(path, columns, text).table


def load_table(
    path: str, columns: Sequence[str] | None = None, text: Sequence[str] = ("id",), names: str | None = None
) -> Loaded:
    """Read a whole table file.

    Parameters
    ----------
    path : str
        Local path or URL with a suffix in `TABLE_SUFFIXES`.
    columns : sequence of str, optional
        The columns to read. A field of a struct in a Parquet file is ``"name.field"``.
    text : sequence of str
        Columns of CSV, TSV and JSON lines that are read as strings, so that the id ``007`` keeps its zeros.
    names : str, optional
        The names of all columns of a CSV or TSV file without a header line, separated by commas.

    Returns
    -------
    Loaded
        Columns keep their types. Empty cells of CSV and TSV are null, also in string columns. A CSV or TSV file
        that is not UTF-8 is read in its detected encoding, and a TSV file whose quotes are part of its texts is read
        without quoting. Both are reported in the notes.

    Raises
    ------
    SourceError
        The file cannot be read, a quote is not closed, or two columns have the same name.
    MissingExtraError
        A CSV or TSV file is not UTF-8, and charset-normalizer is not installed.
    """
    location = absolute(path)
    suffix = suffix_of(split_location(location)[1])
    if suffix not in TABLE_SUFFIXES:
        raise SourceError(f"the suffix of a table must be one of {', '.join(TABLE_SUFFIXES)}, got {path!r}")
    if names is not None and suffix not in _DELIMITERS:
        raise SourceError(f"header (--header) is for CSV and TSV files, and the columns of {path!r} have names")
    try:
        with open_file(location) as file:
            if suffix == ".parquet":
                loaded = Loaded(pq.ParquetFile(file).read(columns))
            elif suffix in _DELIMITERS:
                loaded = _read_csv(file.read(), _DELIMITERS[suffix], split_location(location)[1], columns, text, names)
            else:
                loaded = Loaded(_read_json(file.read(), columns, text))
    except MissingExtraError as error:
        raise MissingExtraError(f"{path!r} is {error}") from error
    except (pa.ArrowException, OSError, ValueError, SourceError) as error:
        raise SourceError(f"cannot read the table {path!r}: {error}") from error
    refuse_doubled_names(loaded.table.schema, path)
    return loaded


def refuse_doubled_names(schema: pa.Schema, name: str) -> None:
    """Raise SourceError if two columns have the same name."""
    names = schema.names
    if doubled := sorted({column for column in names if names.count(column) > 1}):
        raise SourceError(
            f"column names of {name!r} must be unique, and {doubled[0]!r} occurs more than once: rename it"
        )


def empty_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a string column with null in place of empty strings."""
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _read_csv(
    data: bytes, delimiter: str, name: str, columns: Sequence[str] | None, text: Sequence[str], names: str | None
) -> Loaded:
    data, encoding = to_utf8(data)
    table, remark = parse_csv(data, delimiter, columns, text, names)
    for i, field in enumerate(table.schema):
        if field.type == pa.string():
            table = table.set_column(i, field, empty_to_null(table.column(i)))
    notes = [f"{name}: read in the detected encoding {encoding}"] if encoding else []
    return Loaded(table, (*notes, f"{name}: {remark}") if remark else tuple(notes))


def _read_json(data: bytes, columns: Sequence[str] | None, text: Sequence[str]) -> pa.Table:
    data.decode()
    _refuse_deep(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    read = pa.json.ReadOptions(block_size=block_size(len(data)))
    table = pa.json.read_json(pa.BufferReader(data), read)
    # pyarrow turns strings that look like dates into times, which changes how they are written.
    dates = [
        (name, pa.string())
        for name in text
        if name in table.column_names and pa.types.is_timestamp(table.schema.field(name).type)
    ]
    if dates:
        table = pa.json.read_json(pa.BufferReader(data), read, pa.json.ParseOptions(explicit_schema=pa.schema(dates)))
    return table if columns is None else table.select(list(columns))


def _refuse_deep(data: bytes) -> None:
    """Raise SourceError for a line nested so deeply that the parser of pyarrow would overflow the stack."""
    for number, line in enumerate(io.BytesIO(data), 1):
        if line.count(b"[") + line.count(b"{") > _MANY_BRACKETS:
            try:
                json.loads(line)
            except RecursionError as error:
                raise SourceError(f"line {number} is nested too deeply") from error
            except ValueError:
                pass  # pyarrow reports it
