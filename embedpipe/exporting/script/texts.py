"""Classify texts with the model in this folder: ``python predict.py messages.csv --to predictions.csv``.

Written by embedpipe. It needs onnxruntime, numpy and tokenizers, and gives the table of ``embedpipe predict``: one row
for each text, with the reason for one that cannot be read. A file .csv or .tsv has a column with a usual name such as
``text``, ``body`` or ``message``, one column only, or one that ``--text`` names, and may have the columns ``id`` and
``label``; any other file is one text.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe.decoding.text import decode_text
from embedpipe.errors import DecodeError
from embedpipe.exporting.script.files import files_in, require_items
from embedpipe.exporting.script.output import require_writable
from embedpipe.exporting.script.table import FOLDER, finish, load_settings, predict
from embedpipe.sources.column_roles import PAYLOAD_COLUMNS
from embedpipe.sources.file_types import TEXT_SUFFIXES

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
    import tokenizers

    declared = settings["tokens"]
    core = tokenizers.Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    items = [item for source in given.texts for item in texts_in(source, settings["column"], given.text)]
    require_items(items, given.texts, TEXT_SUFFIXES)

    def prepare(item: dict[str, Any]) -> Any:
        payload = item.pop("payload", None)
        decoded = decode_text(Path(item["uri"]).read_bytes() if payload is None else payload).text
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
    path = Path(source)
    if path.suffix.lower() not in (".csv", ".tsv"):
        return files_in(source, TEXT_SUFFIXES, column)
    csv.field_size_limit(2**31 - 1)  # by default a long text is an error
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = list(csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    except (OSError, ValueError, csv.Error) as error:
        sys.exit(f"{source} cannot be read as a table ({error}): save it in UTF-8, as CSV or with tabs")
    names = [name for name in table[0] if name is not None] if table else ["text"]  # None: cells beyond the header
    in_any_case = {name.strip().lower(): name for name in reversed(names)} | {name: name for name in names}
    usual = [in_any_case[name] for name in PAYLOAD_COLUMNS["text"] if name in in_any_case]
    text = text or next(iter(usual), names[0] if len(names) == 1 else "text")
    if text not in names:
        sys.exit(f"{source} must have a column {text!r}, and has {', '.join(names)}: name one of them by --text")
    items = []
    for number, row in enumerate(table):
        id, label = (row.get(in_any_case.get(role, role)) for role in ("id", "label"))
        item = {"id": id or f"row-{number:08d}", "uri": f"table://{text}/{number}::{path.absolute()}"}
        if column == "label" and label:
            item["actual"] = label
        items.append({**item, "payload": row[text] or ""})
    return items


if __name__ == "__main__":
    sys.exit(main())
