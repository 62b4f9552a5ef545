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

#: Lines of JSON with fewer brackets than this are not looked at more closely.
_DEEPEST = 500

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Loaded(NamedTuple):
    """A table that was read, and what the user should hear about how."""

    table: pa.Table
    notes: tuple[str, ...] = ()


def read_table(path: str, columns: Sequence[str] | None = None, text: Sequence[str] = ("id",)) -> pa.Table:
    """Read a table file whole: the table of `load_table`."""
    return load_table(path, columns, text).table


def load_table(
    path: str, columns: Sequence[str] | None = None, text: Sequence[str] = ("id",), names: str | None = None
) -> Loaded:
    """Read a table file whole.

    Parameters
    ----------
    path : str
        Local path or URL, of a suffix in `TABLE_SUFFIXES`.
    columns : sequence of str, optional
        Which columns to read; a struct's field in a Parquet file is ``"name.field"``.
    text : sequence of str
        Columns of CSV, TSV and JSON lines that stay strings, so that an id of ``007`` keeps its zeros.
    names : str, optional
        The names of all columns of a CSV or TSV file that has no header line, separated by commas.

    Returns
    -------
    Loaded
        Columns keep their types. Empty cells of CSV and TSV are null, in string columns too. A CSV or TSV file
        that is not UTF-8 is read in the encoding that is detected, and a TSV file whose quotes belong to its
        texts is read without quoting: both are in the notes.

    Raises
    ------
    SourceError
        The file cannot be read, a quote in it is not closed, or two columns have one name.
    MissingExtraError
        A CSV or TSV file is not UTF-8, and what detects other encodings is not installed.
    """
    location = absolute(path)
    suffix = suffix_of(split_location(location)[1])
    if suffix not in TABLE_SUFFIXES:
        raise SourceError(f"{path!r} is no table: its suffix must be one of {', '.join(TABLE_SUFFIXES)}")
    if names is not None and suffix not in _DELIMITERS:
        raise SourceError(f"--header is for CSV and TSV files; the columns of {path!r} have names")
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
    """Raise SourceError if two columns have one name."""
    names = schema.names
    if doubled := sorted({column for column in names if names.count(column) > 1}):
        raise SourceError(f"{name!r} has several columns named {doubled[0]!r}; rename them")


def empty_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a string column with null for each empty string."""
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _read_csv(
    data: bytes, delimiter: str, name: str, columns: Sequence[str] | None, text: Sequence[str], names: str | None
) -> Loaded:
    data, encoding = to_utf8(data)
    table, remark = parse_csv(data, delimiter, columns, text, names)
    for i, field in enumerate(table.schema):
        if field.type == pa.string():
            table = table.set_column(i, field, empty_to_null(table.column(i)))
    notes = [f"read {name} as {encoding} (detected)"] if encoding else []
    return Loaded(table, (*notes, f"{name}: {remark}") if remark else tuple(notes))


def _read_json(data: bytes, columns: Sequence[str] | None, text: Sequence[str]) -> pa.Table:
    data.decode()
    _refuse_deep(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    read = pa.json.ReadOptions(block_size=block_size(len(data)))
    table = pa.json.read_json(pa.BufferReader(data), read)
    # Strings that all look like dates become times, and would not come back as they were written.
    dates = [
        (name, pa.string())
        for name in text
        if name in table.column_names and pa.types.is_timestamp(table.schema.field(name).type)
    ]
    if dates:
        table = pa.json.read_json(pa.BufferReader(data), read, pa.json.ParseOptions(explicit_schema=pa.schema(dates)))
    return table if columns is None else table.select(list(columns))


def _refuse_deep(data: bytes) -> None:
    """Raise SourceError for a line that is nested so deeply that pyarrow's parser would overflow the stack."""
    for number, line in enumerate(io.BytesIO(data), 1):
        if line.count(b"[") + line.count(b"{") > _DEEPEST:
            try:
                json.loads(line)
            except RecursionError as error:
                raise SourceError(f"line {number} is nested too deeply") from error
            except ValueError:
                pass  # pyarrow's to say
