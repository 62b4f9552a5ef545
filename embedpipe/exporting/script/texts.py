"""Classify texts with the model in this folder: ``python predict.py messages.csv --to predictions.csv``.

Written by embedpipe. It needs onnxruntime, numpy and tokenizers, and gives the table of ``embedpipe predict``: one row
for each text, with the reason for one that cannot be read. A file .csv or .tsv has a column with a usual name such as
``text``, ``body`` or ``message``, one column only, or one that ``--text`` names, and may have the columns ``id`` and
``label``; any other file is one text.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.counting import counted
from embedpipe.decoding.text import decode_text
from embedpipe.errors import DecodeError, EmbedpipeError, SourceError
from embedpipe.exporting.script.files import files_in, require_items
from embedpipe.exporting.script.output import require_writable
from embedpipe.exporting.script.table import FOLDER, finish, load_settings, predict
from embedpipe.sources.column_roles import PAYLOAD_COLUMNS
from embedpipe.sources.encodings import to_utf8
from embedpipe.sources.file_types import EMAIL_SUFFIX, TABLE_SUFFIXES, TEXT_SUFFIXES, EmailBytes, suffix_of
from embedpipe.sources.tables.csv_files import delimiter_of, quoting_of

#: Suffixes of tables that are read.
DELIMITERS = {".csv": ",", ".tsv": "\t"}
#: Characters of a text in the table.
EXCERPT = 1000


def main() -> int:
    """Predict the texts that the command line names."""
    parser = argparse.ArgumentParser(description="Classify texts with the model in this folder.")
    parser.add_argument("texts", nargs="+", help="files of texts, folders of them, or tables .csv and .tsv")
    parser.add_argument("--to", metavar="FILE.csv", help="the table to write; by default standard output")
    parser.add_argument("--text", metavar="COLUMN", help="the column of a table that holds the texts")
    given = parser.parse_args()
    require_writable(given.to)
    settings = load_settings()
    try:
        import tokenizers
    except ImportError as error:
        sys.exit(f"{error}: pip install tokenizers")

    declared = settings["tokens"]
    core = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    items = [item for source in given.texts for item in texts_in(source, settings["column"], given.text)]
    require_items(items, given.texts, TEXT_SUFFIXES)

    def prepare(item: dict[str, Any]) -> Any:
        payload, problem = item.pop("payload", None), item.pop("problem", None)
        if problem is not None:
            raise DecodeError(problem)
        if payload is None:
            payload = read_regular(item["uri"])
            payload = EmailBytes(payload) if suffix_of(item["uri"]) == EMAIL_SUFFIX else payload
        decoded = decode_text(payload).text
        item["text"] = decoded[:EXCERPT]
        return encode(core, decoded, declared)

    rows = predict(items, prepare, lambda pieces: collate(pieces, declared), settings)
    return finish(rows, settings, given.to)


def encode(core: Any, text: str, declared: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the tokens and token types of a text."""
    text = declared["prompt"] + text
    text = text.lower() if declared["lower"] else text
    window = declared["window"]
    found = core.encode(text if window is None else text[:window])
    if window is not None and len(text) > window and not found.overflowing:
        found = core.encode(text)  # its tokens are longer than expected
    if declared["rows"] is not None and max(found.ids, default=0) >= declared["rows"]:
        raise DecodeError("the text has a token for which the network has no vector: remove it")
    return found.ids, found.type_ids


def collate(pieces: list[Any], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return texts as one batch with padding."""
    width = max(len(ids) for ids, _ in pieces)
    batch = {
        "input_ids": np.full((len(pieces), width), declared["pad"], np.int64),
        "attention_mask": np.zeros((len(pieces), width), np.int64),
        "token_type_ids": np.full((len(pieces), width), declared["type_pad"], np.int64),
    }
    for row, (ids, types) in enumerate(pieces):
        batch["input_ids"][row, : len(ids)] = ids
        batch["attention_mask"][row, : len(ids)] = 1
        batch["token_type_ids"][row, : len(ids)] = types
    return {name: batch[name] for name in declared["inputs"]}


def texts_in(source: str, column: str, text: str | None) -> list[dict[str, Any]]:
    """Return the texts of a table, of a folder, or one; ``text``: the table's column, by default as `embed` has it."""
    path, suffix = Path(source), suffix_of(source)
    if suffix not in DELIMITERS:
        if suffix in TABLE_SUFFIXES and not path.is_dir():
            sys.exit(f"a table must be a file .csv or .tsv, got {source}: save it as CSV")
        return files_in(source, TEXT_SUFFIXES, column)
    names, rows = _read_table(source, DELIMITERS[suffix])
    in_any_case = {name.lower(): name for name in reversed(names)} | {name: name for name in names}
    usual = [in_any_case[name] for name in PAYLOAD_COLUMNS["text"] if name in in_any_case]
    chosen = text or next(iter(usual), names[0] if len(names) == 1 else "text")
    if chosen not in names:
        sys.exit(f"{source} must have a column {chosen!r}, and has {', '.join(names)}: name one of them by --text")
    if chosen not in (text, *usual):
        print(f"{source}: the texts are in its only column, {chosen!r}", file=sys.stderr)
    items = []
    for number, row in enumerate(rows):
        id, label = (row.get(in_any_case.get(role, role)) for role in ("id", "label"))
        item = {"id": id or f"row-{number:08d}", "uri": f"table://{chosen}/{number}::{path.absolute()}"}
        if id == "":
            item |= {"id": f"row {number + 1} of {path.name}", "problem": "column 'id' must hold an id, and is empty"}
        if column == "label" and label:
            item["actual"] = label
        items.append({**item, "payload": row[chosen]})
    counts = Counter(item["id"] for item in items)
    if doubled := [id for id, count in counts.items() if count > 1]:
        sys.exit(f"ids of {source} must be unique, and {doubled[0]!r} occurs more than once: drop the repeated rows")
    return items


def _read_table(source: str, delimiter: str) -> tuple[list[str], list[dict[str, str]]]:
    """Return the names of the columns and the rows. End the script for a table that embedpipe would refuse."""
    csv.field_size_limit(2**31 - 1)  # by default a long text is an error
    try:
        data, _ = to_utf8(read_regular(source))
        delimiter, _ = delimiter_of(data + b"\n", delimiter, None)
        quoting, _ = quoting_of(data + b"\n", delimiter, quoted_header=data.startswith(b'"'))
        lines = io.StringIO(data.decode(), newline="")
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE)
        names = [name.strip() for name in next(reader, [])]
        if not names:
            raise SourceError("it is empty")
        if doubled := [name for name, count in Counter(names).items() if count > 1]:
            raise SourceError(f"column names must be unique, and {doubled[0]!r} occurs more than once: rename it")
        rows = []
        for cells in reader:
            if cells and len(cells) != len(names):
                raise SourceError(
                    f"line {reader.line_num} must have {counted(len(names), 'cell')}, as the header, got {len(cells)}: "
                    f"put a text with {delimiter!r} in it between quotes"
                )
            if cells:  # else the line is empty
                rows.append(dict(zip(names, cells, strict=True)))
    except (OSError, ValueError, csv.Error, EmbedpipeError) as error:
        sys.exit(f"{source} cannot be read as a table ({error}): save it as CSV in UTF-8")
    return names, rows


if __name__ == "__main__":
    sys.exit(main())
