"""Reading CSV, TSV, Parquet and JSON-lines files as Arrow tables, local or remote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from embedpipe.errors import SourceError
from embedpipe.sources.locations import absolute, open_file, split
from embedpipe.sources.suffixes import TABLE_SUFFIXES, suffix_of

# Types are guessed from the first block alone, so a block is as much as may be: the whole file, mostly.
_MAX_BLOCK = 1 << 30


def read_table(path: str, columns: Sequence[str] | None = None, text: Sequence[str] = ("id",)) -> pa.Table:
    """Read a table file whole.

    Parameters
    ----------
    path : str
        Local path or URL, of a suffix in `TABLE_SUFFIXES`.
    columns : sequence of str, optional
        Which columns to read of a Parquet file; a struct's field is ``"name.field"``.
    text : sequence of str
        Columns of CSV and TSV that stay strings, so that an id of ``007`` keeps its zeros.

    Returns
    -------
    pyarrow.Table
        Columns keep their types. Empty cells of CSV and TSV are null, in string columns too.

    Raises
    ------
    SourceError
        The file cannot be read, or two columns have one name.
    """
    location = absolute(path)
    suffix = suffix_of(split(location)[1])
    try:
        with open_file(location) as file:
            table = _READERS[suffix](file, columns, text)
    except KeyError as error:
        raise SourceError(f"{path!r} is no table: its suffix must be one of {', '.join(TABLE_SUFFIXES)}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"cannot read the table {path!r}: {error}") from error
    refuse_doubled_names(table.schema, path)
    return table


def refuse_doubled_names(schema: pa.Schema, name: str) -> None:
    """Raise SourceError if two columns have one name."""
    names = schema.names
    if doubled := sorted({column for column in names if names.count(column) > 1}):
        raise SourceError(f"{name!r} has several columns named {doubled[0]!r}; rename them")


def empty_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a string column with null for each empty string."""
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _read_csv(delimiter: str) -> Any:
    def read(file: Any, columns: Sequence[str] | None, text: Sequence[str]) -> pa.Table:
        table = pa.csv.read_csv(
            file,
            read_options=pa.csv.ReadOptions(block_size=_block(file)),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types={name: pa.string() for name in text}),
        )
        for i, field in enumerate(table.schema):
            if field.type == pa.string():
                table = table.set_column(i, field, empty_to_null(table.column(i)))
        return table

    return read


def _read_json(file: Any, columns: Sequence[str] | None, text: Sequence[str]) -> pa.Table:
    return pa.json.read_json(file, read_options=pa.json.ReadOptions(block_size=_block(file)))


def _read_parquet(file: Any, columns: Sequence[str] | None, text: Sequence[str]) -> pa.Table:
    return pq.ParquetFile(file).read(columns)


def _block(file: Any) -> int:
    size: int = file.size()
    return min(max(size + 1, 1 << 16), _MAX_BLOCK)


_READERS = {
    ".csv": _read_csv(","),
    ".tsv": _read_csv("\t"),
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".parquet": _read_parquet,
}
