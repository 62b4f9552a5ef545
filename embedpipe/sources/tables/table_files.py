"""Reading CSV, TSV, Parquet, Arrow, JSON-lines and .xlsx files as Arrow tables, local or remote."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe.errors import MissingExtraError, SourceError
from embedpipe.sources.column_roles import MOST_COLUMNS, refuse_wide
from embedpipe.sources.columns.labels import with_clean_labels
from embedpipe.sources.columns.numbers import read_numbers
from embedpipe.sources.columns.spool import Spool
from embedpipe.sources.encodings import to_utf8
from embedpipe.sources.file_types import FORMULA_SIGNS, TABLE_SUFFIXES, suffix_of
from embedpipe.sources.listing import CHUNK_ROWS
from embedpipe.sources.locations import absolute, local_path, open_file, split_location
from embedpipe.sources.tables.csv_files import block_size, parse_csv

#: Strings of JSON: the group is a key, or empty for other strings.
_KEY = re.compile(rb'("(?:[^"\\]++|\\.)*+"(?=\s*+:))|"(?:[^"\\]++|\\.)*+"', re.DOTALL)

#: Number of keys up to which it is faster to count each.
_FEW_KEYS = 60

#: Number of brackets in a line of JSON above which its depth is checked.
_MANY_BRACKETS = 500

#: Number of rows above which a Parquet file is read part by part, into a memory map.
SPOOLED_ROWS = 1 << 18

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Loaded(NamedTuple):
    """A table, and remarks on how it was read for the user."""

    table: pa.Table
    notes: tuple[str, ...] = ()


def read_table(path: str, columns: Sequence[str] | None = None, text: Sequence[str] = ("id",)) -> pa.Table:
    """Read a whole table file. See `load_table`."""
    return load_table(path, columns, text).table


def read_labels(path: str, id: str, label: str) -> Loaded:
    """Read a table with the labels of items, for `FeatureStore.label`. ``id`` and ``label`` are its columns.

    In CSV, TSV and .xlsx, the apostrophe that embedpipe writes before what looks like a formula is taken away.
    """
    table, notes = load_table(path, text=(id,))
    table, count = without_apostrophes(table, path, (id, label))
    if count:
        cells = counted(count, "cell")
        notes += (f"{split_location(path)[1]}: the ' before what looks like a formula is taken away in {cells}",)
    table, remarks = with_clean_labels(table, label)
    return Loaded(table, (*notes, *(f"{split_location(path)[1]}: {remark}" for remark in remarks)))


def without_apostrophes(table: pa.Table, path: str, names: Sequence[str]) -> tuple[pa.Table, int]:
    """Return a table of a file without the ' that embedpipe writes before what looks like a formula.

    Also returns how many cells changed. Only CSV, TSV and .xlsx have them.
    """
    count = 0
    if suffix_of(path) not in (*_DELIMITERS, ".xlsx"):
        return table, count
    for at, name in enumerate(table.column_names):
        column = table.column(at)
        if name in names and pa.types.is_string(column.type):
            safe = pc.match_substring_regex(column, rf"(?s)^'[{FORMULA_SIGNS}].")
            count += pc.sum(safe).as_py() or 0
            table = table.set_column(at, name, pc.if_else(safe, pc.utf8_slice_codeunits(column, 1), column))
    return table, count


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
        Columns of CSV and TSV that stay text, also if all values are numbers.
    names : str, optional
        The names of all columns of a CSV or TSV file without a header line, separated by commas.

    Returns
    -------
    Loaded
        Columns of Parquet and Arrow keep their types, and strings of JSON stay strings. Columns of CSV, TSV and .xlsx
        are text, or numbers if all values are printed as they are written (`read_numbers`). Their empty cells are null.
        A file that is not UTF-8 is read in its detected encoding, and a TSV file whose quotes are part of its texts
        without quoting. All of this is reported in the notes.

    Raises
    ------
    SourceError
        The file cannot be read, a quote is not closed, or two columns have the same name.
    MissingExtraError
        A CSV or TSV file is not UTF-8, and charset-normalizer is not installed; or openpyxl, for .xlsx.
    """
    location = absolute(path)
    suffix = suffix_of(split_location(location)[1])
    if suffix not in TABLE_SUFFIXES:
        raise SourceError(f"the suffix of a table must be one of {', '.join(TABLE_SUFFIXES)}, got {path!r}")
    if names is not None and suffix not in _DELIMITERS:
        raise SourceError(f"{option('header')} is for CSV and TSV files, and the columns of {path!r} have names")
    try:
        with open_file(location) as file:
            if suffix == ".parquet":
                parquet = pq.ParquetFile(file)
                refuse_wide(len(parquet.schema_arrow), path)
                loaded = Loaded(_read_parquet(parquet, columns))
            elif suffix == ".arrow":
                loaded = Loaded(_read_arrow(file, local_path(location), columns))
            elif suffix in _DELIMITERS:
                loaded = _read_csv(file.read(), _DELIMITERS[suffix], split_location(location)[1], columns, text, names)
            elif suffix == ".xlsx":
                loaded = _read_workbook(file.read(), split_location(location)[1], columns, text)
            else:
                loaded = Loaded(_read_json(file.read(), columns))
    except MissingExtraError as error:
        raise MissingExtraError(f"{path!r} is {error}") from error
    except (pa.ArrowException, OSError, ValueError, SourceError) as error:
        raise SourceError(f"cannot read the table {path!r}: {error}") from error
    refuse_doubled_names(loaded.table.schema, path)
    return loaded


def refuse_doubled_names(schema: pa.Schema, name: str) -> None:
    """Raise SourceError if two columns have the same name."""
    if doubled := sorted(column for column, count in Counter(schema.names).items() if count > 1):
        raise SourceError(
            f"column names of {name!r} must be unique, and {doubled[0]!r} occurs more than once: rename it"
        )


def empty_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a string column with null in place of empty strings."""
    empty = pc.equal(column, "")
    return pc.if_else(empty, pa.scalar(None, pa.string()), column) if pc.any(empty).as_py() else column


def _read_parquet(file: pq.ParquetFile, columns: Sequence[str] | None) -> pa.Table:
    # Batches without a column do not keep the number of rows, which a table whose cells are read later needs.
    if file.metadata.num_rows <= SPOOLED_ROWS or (columns is not None and not columns):
        return file.read(columns)
    spool = Spool()
    for batch in file.iter_batches(CHUNK_ROWS, columns=columns):
        spool.add(pa.Table.from_batches([batch]))
    return pa.concat_tables(spool.finish())


def _read_arrow(file: pa.NativeFile, path: str | None, columns: Sequence[str] | None) -> pa.Table:
    """Read an Arrow file or stream, as a memory map if it is local. Its offsets and texts are checked."""
    is_file = bytes(file.read_at(6, 0)) == b"ARROW1"
    source = file if path is None else pa.memory_map(path)
    reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
    refuse_wide(len(reader.schema), "the file")
    table = reader.read_all()
    table = table if columns is None else table.select(list(columns))
    table.validate(full=True)
    return table


def _read_csv(
    data: bytes, delimiter: str, name: str, columns: Sequence[str] | None, text: Sequence[str], names: str | None
) -> Loaded:
    data, encoding = to_utf8(data)
    table, delimiter, remarks = parse_csv(data, delimiter, columns, names)
    for i, field in enumerate(table.schema):
        table = table.set_column(i, field, empty_to_null(table.column(i)))
    table, inferred = read_numbers(table, text, decimal_comma=delimiter == ";")
    remarks = [f"read in the detected encoding {encoding}"] * bool(encoding) + remarks + inferred
    return Loaded(table, tuple(f"{name}: {remark}" for remark in remarks))


def _read_workbook(data: bytes, name: str, columns: Sequence[str] | None, text: Sequence[str]) -> Loaded:
    from embedpipe.sources.tables.workbooks import read_workbook

    table, remarks = read_workbook(data)
    if columns is not None:
        table = table.select(list(columns))
    table, inferred = read_numbers(table, text, decimal_comma=False)
    return Loaded(table, tuple(f"{name}: {remark}" for remark in remarks + inferred))


def _read_json(data: bytes, columns: Sequence[str] | None) -> pa.Table:
    data.decode()
    _refuse_crashing(data)
    data = data.removeprefix(b"\xef\xbb\xbf")
    read = pa.json.ReadOptions(block_size=block_size(len(data)))
    table = pa.json.read_json(pa.BufferReader(data), read)
    # pyarrow turns strings that look like dates into times, which changes how they are written.
    dates = [(field.name, pa.string()) for field in table.schema if pa.types.is_temporal(field.type)]
    if dates:
        table = pa.json.read_json(pa.BufferReader(data), read, pa.json.ParseOptions(explicit_schema=pa.schema(dates)))
    table = _whole_integers(table, data)
    return table if columns is None else table.select(list(columns))


def _whole_integers(table: pa.Table, data: bytes) -> pa.Table:
    """Return integers that do not fit 64 bits, or are among decimals, as text: pyarrow rounds them to floats."""
    for i, field in enumerate(table.schema):
        if not pa.types.is_float64(field.type) or not pc.any(pc.greater(pc.abs(table.column(i)), 2.0**53)).as_py():
            continue
        rows = (json.loads(line, parse_int=str, parse_float=str) for line in data.splitlines() if line.strip())
        values = [row.get(field.name) for row in rows]
        integers = (value for value in values if isinstance(value, str) and value.lstrip("-").isdigit())
        if len(values) == len(table) and any(int(float(value)) != int(value) for value in integers):
            table = table.set_column(i, field.name, pa.chunked_array([pa.array(values, pa.string())]))
    return table


def _refuse_crashing(data: bytes) -> None:
    """Raise SourceError for a line that ends pyarrow's parser, and the process: ``null``, or one nested too deeply."""
    for number, line in enumerate(io.BytesIO(data), 1):
        if line.lstrip().startswith(b"null"):
            raise SourceError(f"line {number} must be a JSON object, got null: delete the line")
        if line.count(b"[") + line.count(b"{") > _MANY_BRACKETS:
            try:
                json.loads(line)
            except RecursionError as error:
                raise SourceError(f"line {number} is nested too deeply") from error
            except ValueError:
                pass  # pyarrow reports it
    _refuse_many_keys(data)


def _refuse_many_keys(data: bytes) -> None:
    """Raise SourceError for more keys than a table has columns: pyarrow has a value of every key in every row.

    Most files have few keys, which are in the first lines: the others are counted without parsing.
    """
    first = set(_KEY.findall(data[: data.find(b"\n", 1 << 14) + 1 or len(data)]))
    spaces = any(data.count(sign) for sign in (b" :", b"\t:", b"\r:"))
    if not spaces and len(first) < _FEW_KEYS:
        others = data.count(b'":') - sum(data.count(key + b":") for key in first if key)
        if others + len(first) <= MOST_COLUMNS:
            return
    keys: set[bytes] = set()
    for block in _blocks(data):
        keys.update(_KEY.findall(block))
        refuse_wide(len(keys) - 1, "the file")  # other strings are b""


def _blocks(data: bytes) -> Iterator[bytes]:
    """Yield JSON lines in blocks of about 1 MB."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + (1 << 20)) + 1 or len(data)
        yield data[start:end]
        start = end
