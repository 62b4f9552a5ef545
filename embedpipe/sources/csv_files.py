"""CSV and TSV as they are in the wild: with quotes that quote, quotes that are text, and without a header line."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv

from embedpipe.errors import SourceError

_MAX_BLOCK = 1 << 30


def parse_csv(
    data: bytes, delimiter: str, columns: Sequence[str] | None, text: Sequence[str], names: str | None
) -> tuple[pa.Table, str | None]:
    """Parse CSV or TSV in UTF-8; return the table, and a remark on its delimiter and quotes if they are remarkable.

    Parameters
    ----------
    data : bytes
    delimiter : str
        One ASCII character. With a tab, quotes may be found to be text: see `_quotes`.
    columns : sequence of str, optional
        Which columns to return; else all.
    text : sequence of str
        Columns that stay strings, whatever their values look like.
    names : str, optional
        Names of all columns, separated by commas, where the file has no header line.

    Raises
    ------
    SourceError
        A quote is not closed, or ``names`` are not as many as the columns.
    pyarrow.ArrowInvalid
        Rows have different numbers of columns.
    """
    if not data.endswith(b"\n"):
        data += b"\n"  # pyarrow makes nothing of a single line without an end
    delimiter, note = _delimiter(data, delimiter, names)
    quoting, remark = _quotes(data, delimiter, quoted_header=names is None and data.startswith(b'"'))
    given = None if names is None else [name.strip() for name in names.split(",")]
    # Where there is no header, pyarrow calls the columns f0, f1...
    called = {
        name: name if given is None else f"f{given.index(name)}" for name in text if given is None or name in given
    }
    wanted = None if columns is None or given is not None else list(columns)
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(block_size=block_size(len(data)), autogenerate_column_names=given is not None),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quoting else False, newlines_in_values=quoting
        ),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in called.values()}, include_columns=wanted
        ),
    )
    if given is not None:
        if table.num_columns != len(given):
            raise SourceError(f"--header names {len(given)} ({', '.join(given)}), but the file has {table.num_columns}")
        table = table.rename_columns(given)
        table = table if columns is None else table.select(list(columns))
    return table, "; ".join(part for part in (note, remark) if part) or None


def _delimiter(data: bytes, delimiter: str, names: str | None) -> tuple[str, str | None]:
    """Return what separates the columns, and a remark if it is not what the file's name says.

    Spreadsheets write semicolons where the decimal sign is a comma, and some programs tabs, and call it CSV.
    """
    first = data.partition(b"\n")[0]
    if delimiter != "," or (b"," in first and names is None):
        return delimiter, None
    for other, word in ((";", "semicolons"), ("\t", "tabs")):
        if other.encode() in first and (names is None or first.count(other.encode()) == names.count(",")):
            return other, f"its columns are separated by {word}"
    return delimiter, None


def block_size(size: int) -> int:
    """Return how much pyarrow parses at once of text of a size in bytes.

    It guesses types from the first block alone, so a block is as much as may be: all, mostly.
    """
    return min(max(size + 1, 1 << 16), _MAX_BLOCK)


def _quotes(data: bytes, delimiter: str, quoted_header: bool) -> tuple[bool, str | None]:
    """Decide whether quotes quote. Return that, and a remark where they may be meant otherwise.

    A quote at the beginning of a field that is text and not quoting swallows all up to the next quote: rows and
    all. What tells: a quoted field that is not closed, or goes on behind its closing quote; and, if every
    line has the same number of delimiters anyway, a quoted field that goes over several lines, or quotes
    inside unquoted fields, which nothing that quotes writes. TSV is then read without quoting, unless its header
    line is quoted. Commas are too common in texts for that, so CSV is then an error or, where it can be read by the
    rules, remarked on.

    Raises
    ------
    SourceError
        A quoted field is not closed, naming the line.
    """
    if b'"' not in data:
        return True, None
    well_formed, quoted = _patterns(delimiter)
    match = well_formed.match(data)
    end = match.end() if match else 0
    broken = end < len(data)
    line = data.count(b"\n", 0, end) + 1
    regular = _is_regular(data, delimiter)
    if broken and (delimiter != "\t" or not regular):
        raise SourceError(
            f"line {line}: a quoted field is not closed, or goes on behind its closing quote; "
            'close it, and write each quote inside it twice: ""'
        )
    if broken:
        return False, f"read without quoting, for a quote on line {line} is part of the text"
    if not regular or quoted_header:
        return True, None
    fields = over_lines = quotes = 0
    for found in quoted.finditer(data):
        field = found.group()
        fields += 1
        quotes += field.count(b'"')
        over_lines += b"\n" in field or b"\r" in field
    bare = fields and quotes < data.count(b'"')
    if delimiter == "\t" and delimiter.encode() in data and (over_lines or bare):
        return False, "read without quoting, for its quotes are part of the text"
    if over_lines:
        return True, (
            f"{over_lines} quoted fields go over several lines; if that is wrong, their quotes are part of the text"
        )
    return True, None


def _is_regular(data: bytes, delimiter: str) -> bool:
    """Say whether every line has as many delimiters as the first."""
    counts = (line.group().count(delimiter.encode()) for line in re.finditer(rb"[^\r\n]+", data))
    first = next(counts, 0)
    return all(count == first for count in counts)


@functools.cache
def _patterns(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return what matches well-formed data from the beginning on, and what finds quoted fields in such data."""
    end = rb"[%b\r\n]" % delimiter.encode()
    other = rb"[^%b\r\n]" % delimiter.encode()
    field = rb'"(?:[^"]++|"")*+"(?=%b|\Z)' % end
    well_formed = rb'(?:%b|(?!")%b++|%b)*+' % (field, other, end)
    return re.compile(well_formed), re.compile(rb"(?:\A|(?<=%b))%b" % (end, field))
