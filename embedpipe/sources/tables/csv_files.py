"""Parsing CSV and TSV files, also with unbalanced quotes and without a header line."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv

from embedpipe._utils.option_names import option
from embedpipe.errors import SourceError
from embedpipe.sources.column_roles import MOST_COLUMNS, refuse_wide

_MAX_BLOCK = 1 << 30


def parse_csv(
    data: bytes, delimiter: str, columns: Sequence[str] | None, names: str | None
) -> tuple[pa.Table, str, list[str]]:
    """Parse CSV or TSV in UTF-8. Return a table of strings, its delimiter, and remarks on delimiter and quotes.

    Parameters
    ----------
    data : bytes
    delimiter : str
        One ASCII character. With a tab, quotes may be part of the text: see `quoting_of`.
    columns : sequence of str, optional
        The columns to return. Default: all.
    names : str, optional
        Names of all columns, separated by commas, for a file without a header line.

    Raises
    ------
    SourceError
        A quote is not closed, or the number of ``names`` is not that of the columns.
    pyarrow.ArrowInvalid
        Rows have different numbers of columns.
    """
    if not data.endswith(b"\n"):
        data += b"\n"  # pyarrow returns no rows for a single line without an end
    delimiter, note = delimiter_of(data, delimiter, names)
    quoting, remark = quoting_of(data, delimiter, quoted_header=names is None and data.startswith(b'"'))
    header = None if names is None else [name.strip() for name in names.split(",")]
    first = _first_line(data)
    if first.count(delimiter.encode()) >= MOST_COLUMNS:  # pyarrow may run out of memory and end the process
        outside = re.sub(rb'"(?:[^"]|"")*+"?', b"", first)
        refuse_wide(outside.count(delimiter.encode()) + 1, "the file")
    spaced = header is None and any(name != name.strip() for name in first.decode(errors="replace").split(delimiter))
    wanted = None if columns is None or header is not None or spaced else list(columns)
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        read_options=pa.csv.ReadOptions(block_size=block_size(len(data)), autogenerate_column_names=header is not None),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quoting else False, newlines_in_values=quoting
        ),
        convert_options=pa.csv.ConvertOptions(default_column_type=pa.string(), include_columns=wanted),
    )
    if header is not None:
        if table.num_columns != len(header):
            raise SourceError(
                f"{option('header')} must name all {table.num_columns} columns of the file, "
                f"got {len(header)}: {', '.join(header)}"
            )
        table = table.rename_columns(header)
    elif spaced:
        table = table.rename_columns([name.strip() for name in table.column_names])
    if columns is not None and wanted is None:
        table = table.select(list(columns))
    return table, delimiter, [part for part in (note, remark) if part]


def delimiter_of(data: bytes, delimiter: str, names: str | None) -> tuple[str, str | None]:
    """Return the delimiter, and a remark if it is not the one of the suffix.

    Spreadsheets write CSV with semicolons where the decimal sign is a comma, and some programs write tabs.
    """
    first = _first_line(data)
    if delimiter != "," or (b"," in first and names is None):
        return delimiter, None
    for other, word in ((";", "semicolons"), ("\t", "tabs")):
        if other.encode() in first and (names is None or first.count(other.encode()) == names.count(",")):
            return other, f"columns are separated by {word}"
    return delimiter, None


def _first_line(data: bytes) -> bytes:
    return data[: data.find(b"\n")]  # which parse_csv adds at the end


def block_size(size: int) -> int:
    """Return the block size of pyarrow for a text of ``size`` bytes.

    pyarrow infers types from the first block only, so a block is the whole text, up to 1 GiB.
    """
    return min(max(size + 1, 1 << 16), _MAX_BLOCK)


def quoting_of(data: bytes, delimiter: str, quoted_header: bool) -> tuple[bool, str | None]:
    """Return whether quotes enclose fields, and a remark if they may be part of the text.

    A quote that begins a field as part of its text hides everything up to the next quote, line breaks included. Two
    things reveal this: a quoted field that is not closed or continues after its closing quote; and, if all lines have
    the same number of delimiters, a quoted field over several lines or a quote inside an unquoted field. TSV is then
    read without quoting, unless its header line is quoted. Commas are too frequent in texts for that, so CSV is then
    an error, or gets a remark if it can be parsed by the rules.

    Raises
    ------
    SourceError
        A quoted field is not closed. The message names the line.
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
            f"line {line}: a quoted field is not closed, or continues after its closing quote; "
            'close it, and double each quote inside it: ""'
        )
    if broken:
        return False, f"read without quoting, as a quote on line {line} is part of the text"
    if not regular or quoted_header:
        return True, None
    fields = over_lines = quotes = 0
    for match in quoted.finditer(data):
        field = match.group()
        fields += 1
        quotes += field.count(b'"')
        over_lines += b"\n" in field or b"\r" in field
    bare = fields and quotes < data.count(b'"')
    if delimiter == "\t" and delimiter.encode() in data and (over_lines or bare):
        return False, "read without quoting, as its quotes are part of the text"
    if over_lines:
        return True, (
            f"{over_lines} quoted fields span several lines; if that is wrong, their quotes are part of the text"
        )
    return True, None


def _is_regular(data: bytes, delimiter: str) -> bool:
    """Return whether every line has as many delimiters as the first."""
    counts = (line.group().count(delimiter.encode()) for line in re.finditer(rb"[^\r\n]+", data))
    first = next(counts, 0)
    return all(count == first for count in counts)


@functools.cache
def _patterns(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return a pattern that matches well-formed data from the start, and one that finds its quoted fields."""
    end = rb"[%b\r\n]" % delimiter.encode()
    other = rb"[^%b\r\n]" % delimiter.encode()
    field = rb'"(?:[^"]++|"")*+"(?=%b|\Z)' % end
    well_formed = rb'(?:%b|(?!")%b++|%b)*+' % (field, other, end)
    return re.compile(well_formed), re.compile(rb"(?:\A|(?<=%b))%b" % (end, field))
