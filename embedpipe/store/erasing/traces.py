"""Search of files for traces of an item: its id, content hash and address, in every form in which they are stored.

Parquet and Arrow pages are compressed, so tables are decoded and every cell of text is compared. JSON is read, with the
JSON inside its strings. Cells that hold an id, an address or a hash are compared whole, as ``Copy of cat.jpg`` is not
``cat.jpg``; in other texts a word may stand anywhere. Other files are searched for the bytes, as UTF-8, UTF-16 and as
JSON escapes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import StoreError

#: Files that hold numbers only: vectors and weights.
NUMBERS = ("vectors.npy", "model.bin")
#: What may not stand next to a trace: ``a.jpg`` is not in ``aa.jpg``, ``b/a.jpg`` or ``a.jpg2``.
BEFORE = r"(^|[^0-9A-Za-z_./\\-])"
AFTER = r"($|[^0-9A-Za-z_./\\-]|\.($|[^0-9A-Za-z]))"
#: Columns, and keys of JSON, whose values are compared whole.
WHOLE = ("id", "uri", "content_hash")
#: Shorter words, such as ``12``, stand in other texts too: they are looked for in these columns only.
SHORTEST = 6


class Traces:
    """The words that stand for some items.

    Parameters
    ----------
    words : collection of str
        Ids, content hashes and addresses.
    """

    def __init__(self, words: Collection[str]) -> None:
        self._words = frozenset(word for word in words if word)
        self._long = sorted({word for word in words if len(word) >= SHORTEST})
        self._pattern = BEFORE + "(" + "|".join(map(re.escape, self._long)) + ")" + AFTER
        self._text = re.compile(self._pattern)
        self._bytes = re.compile(b"|".join(re.escape(form) for word in self._long for form in _byte_forms(word)))

    def in_text(self, text: str) -> bool:
        """Return whether a word stands in a text, also in the strings of JSON in it."""
        if text[:1] in ("{", "[", '"'):
            try:
                return self.in_value(parse_json(text))
            except (ValueError, RecursionError):
                pass  # no JSON
        return bool(self._long) and self._text.search(text) is not None

    def in_value(self, value: Any) -> bool:
        """Return whether a word stands in a string of a JSON value, keys included."""
        if isinstance(value, str):
            return self.in_text(value)
        if isinstance(value, dict):
            whole = [name for name in WHOLE if isinstance(value.get(name), str)]
            if any(value[name] in self._words for name in whole):
                return True
            return any(self.in_text(key) or (key not in whole and self.in_value(value[key])) for key in value)
        return isinstance(value, list | tuple) and any(map(self.in_value, value))

    def in_file(self, path: Path) -> bool:
        """Return whether a word stands in a file.

        Raises StoreError if a table in it cannot be decoded, and FileNotFoundError if another process deleted it.
        """
        if path.name in NUMBERS:
            return False
        try:
            if path.suffix == ".parquet" or _begins(path, b"PAR1"):
                return any(self._in_table(part) for part in _parquet_parts(path))
            if path.suffix == ".arrow":
                with pa.memory_map(str(path)) as source:
                    return self._in_table(pa.ipc.open_file(source).read_all())
        except FileNotFoundError:
            raise
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise StoreError(
                f"cannot search {str(path)!r} for what is to be forgotten ({error}): delete the file if it is not "
                "needed, and run forget again"
            ) from error
        data = path.read_bytes()
        if path.suffix in (".json", ".jsonl") or path.name == "_last_checkpoint":
            try:
                return self.in_value(parse_json(data))
            except (ValueError, RecursionError):
                pass  # not one JSON value
            try:
                return any(self.in_text(line.decode()) for line in data.splitlines())
            except UnicodeDecodeError:
                pass  # no JSON: its bytes are searched
        return bool(self._long) and self._bytes.search(data) is not None

    def _in_table(self, table: pa.Table) -> bool:
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind = column.type
            if name in WHOLE and _is_text(kind):
                if pc.any(pc.is_in(column.cast(pa.string()), value_set=pa.array(self._words, pa.string()))).as_py():
                    return True
            elif pa.types.is_nested(kind) and not pa.types.is_floating(getattr(kind, "value_type", kind)):
                if self.in_value(_plain(column.to_pylist())):
                    return True
            elif _is_text(kind):
                values = pc.unique(column.cast(pa.large_string()))
                nested = pc.fill_null(pc.match_substring_regex(values, r'^[{\["]'), False)
                if any(self.in_text(text) for text in values.filter(nested).to_pylist()):
                    return True
                plain = values.filter(pc.invert(nested))
                if self._long and pc.any(pc.match_substring_regex(plain, self._pattern)).as_py():
                    return True
        return False


def _byte_forms(word: str) -> Iterator[bytes]:
    encoded = word.encode("utf-8", "surrogatepass")
    yield encoded
    yield from (word.encode(name, "surrogatepass") for name in ("utf-16-le", "utf-16-be"))
    for ascii_only in (True, False):
        escaped = json.dumps(word, ensure_ascii=ascii_only)[1:-1]
        yield escaped.encode("utf-8", "surrogatepass")
        yield json.dumps(escaped)[1:-1].encode()
    if re.fullmatch(r"[0-9a-f]{64}", word):
        yield bytes.fromhex(word)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _begins(path: Path, with_bytes: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(with_bytes)) == with_bytes


def _parquet_parts(path: Path) -> Iterator[pa.Table]:
    """Yield the metadata of a file as text, and its row groups without vectors."""
    with pq.ParquetFile(path) as parquet:
        schema = parquet.schema_arrow
        texts = [text.decode("utf-8", "replace") for pair in (schema.metadata or {}).items() for text in pair]
        yield pa.table({"metadata": pa.array([text for text in texts if not _is_schema(text)], pa.string())})
        names = [
            field.name
            for field in schema
            if not pa.types.is_list(field.type) or not pa.types.is_floating(field.type.value_type)
        ]
        for group in range(parquet.num_row_groups):
            yield parquet.read_row_group(group, names)


def _is_schema(text: str) -> bool:
    """Return whether a text is Arrow's own copy of the schema."""
    return re.fullmatch(r"[0-9A-Za-z+/=\s]{64,}", text) is not None


def _plain(value: Any) -> Any:
    """Return nested values with bytes as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
