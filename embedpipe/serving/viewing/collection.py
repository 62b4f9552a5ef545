"""`Collection`: the rows of one version of a store in memory, without vectors, and their columns as codes."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.notebook.html_tables import visible
from embedpipe.report.drawing.wording import natural_key
from embedpipe.store import FeatureStore
from embedpipe.store.editing.labelling import as_text
from embedpipe.store.schema import BY_HAND, EXCLUDED, KEY_FIELDS, PERCEPTUAL_HASH, PICTURE_COUNTS

Mask = npt.NDArray[np.bool_]

#: Columns that say where an item came from: shown with the item, and nothing to filter by.
ORIGIN = (*(field.name for field in KEY_FIELDS), BY_HAND, PICTURE_COUNTS, PERCEPTUAL_HASH, "text")
#: With more values, a column is not offered as classes.
MOST_CLASSES = 2_000
#: Integers with at most this many values are classes.
MOST_INTEGERS = 50
#: Characters of a value that are sent.
LONGEST = 4_000


@dataclass(frozen=True)
class Codes:
    """A column as numbers of a fixed list of values.

    Attributes
    ----------
    kind : str
        ``class``, or ``number`` for a column of many numbers.
    codes : int32 array (n,)
        Position in ``values``, -1 for null. Of a column of numbers 0 to 255, evenly between the ends in ``values``.
    values : list of str
        The most frequent first; of a column of numbers the smallest and the largest.
    """

    kind: Literal["class", "number"]
    codes: npt.NDArray[np.int32]
    values: list[str]

    def as_bytes(self) -> bytes:
        """Return the codes as little-endian uint16, 65535 for null."""
        return np.where(self.codes < 0, 65535, self.codes).astype("<u2").tobytes()

    def counts(self, mask: Mask | None = None) -> list[tuple[str | None, int]]:
        """Return the rows of each class, and those without a value last."""
        codes = self.codes if mask is None else self.codes[mask]
        counted = np.bincount(codes + 1, minlength=len(self.values) + 1).tolist()
        pairs: list[tuple[str | None, int]] = list(zip(self.values, counted[1:], strict=False))
        return [*pairs, *([(None, counted[0])] if counted[0] else [])]


class Collection:
    """The rows of one version of a store, in id order.

    Parameters
    ----------
    store : FeatureStore

    Attributes
    ----------
    table : pyarrow.Table
        All columns but the vectors.
    key : str
        Names the items and their vectors: the same after a label has changed, another after an item has. Row numbers
        hold for one key.
    added : frozenset of str
        Columns that were added or replaced since the store was read.
    """

    def __init__(self, store: FeatureStore) -> None:
        self.store, self.version = store, store.version
        self.table = store.to_arrow(store.data_columns).combine_chunks()
        self.key = self._key()
        self.added: frozenset[str] = frozenset()
        self._lock = threading.RLock()
        self._codes: dict[str, Codes | None] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def _key(self) -> str:
        digest = hashlib.sha256(self.store.spec.fingerprint().encode())
        for name in ("id", "content_hash"):
            for chunk in self.table.column(name).chunks:
                for buffer in chunk.buffers()[1:]:
                    digest.update(buffer)
        return digest.hexdigest()[:16]

    def add_columns(self, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> None:
        """Add or replace columns of all rows, all at once for those who read ``added`` before ``table``."""
        with self._lock:
            table = self.table
            for name, values in columns.items():
                at = table.schema.get_field_index(name)
                table = table.append_column(name, values) if at < 0 else table.set_column(at, name, values)
                self._codes.pop(name, None)
            self.table, self.added = table, self.added | {*columns}

    def excluded(self) -> npt.NDArray[np.int64]:
        """Return the rows that are excluded."""
        if EXCLUDED not in self.table.column_names:
            return np.empty(0, np.int64)
        return np.flatnonzero(np.asarray(pc.is_valid(self.table.column(EXCLUDED)), bool))

    def row(self, row: int, columns: list[str] | None = None) -> dict[str, Any]:
        """Return the values of a row as JSON has them."""
        names = columns or self.table.column_names
        return {name: as_json_value(_as_python(self.table.column(name)[row])) for name in names}

    def label(self, name: str, row: int) -> str | None:
        """Return a value as text, as classes and predictions are written: ``true`` for True, and ``1`` for 1.0."""
        text: str | None = as_json_value(as_text(self.table.column(name).slice(row, 1).combine_chunks())[0].as_py())
        return text

    def codes(self, name: str) -> Codes | None:
        """Return a column as codes; None for one that has too many values to be classes, or is no column."""
        with self._lock:
            if name not in self._codes:
                known = name in self.table.column_names and name not in ORIGIN
                self._codes[name] = _encode(self.table.column(name)) if known else None
            return self._codes[name]

    def coded(self) -> dict[str, Codes]:
        """Return the columns that can be filtered and coloured by; label and split come first."""
        names = [name for name in self.table.column_names if name not in ORIGIN]
        names.sort(key=lambda name: {"label": 0, "split": 1}.get(name, 2))
        found = {name: self.codes(name) for name in names}
        return {name: codes for name, codes in found.items() if codes is not None}


def _as_python(value: pa.Scalar) -> Any:
    # Python has no time after the year 9999, and none in nanoseconds.
    return (value.cast(pa.string()) if pa.types.is_temporal(value.type) else value).as_py()


def as_json_value(value: Any) -> Any:
    """Return a value of a cell as JSON: null for numbers that are not finite, text for what JSON has no word for."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    text = value.hex() if isinstance(value, bytes) else str(value)
    return visible(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


def _encode(column: pa.ChunkedArray) -> Codes | None:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        few = pa.types.is_integer(kind) and pc.count_distinct(column).as_py() <= MOST_INTEGERS
        if not few:
            return _scale(column)
    elif not (pa.types.is_string(kind) or pa.types.is_boolean(kind)):
        return None
    encoded = column.combine_chunks().dictionary_encode()
    if len(encoded.dictionary) > MOST_CLASSES or not len(encoded.dictionary):
        return None
    codes = np.asarray(pc.fill_null(encoded.indices, -1), np.int64)
    names = [visible(text) for text in as_text(encoded.dictionary).to_pylist()]
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    order = sorted(range(len(names)), key=lambda i: (-counts[i], natural_key(names[i])))
    place = np.empty(len(names) + 1, np.int32)
    place[order], place[-1] = np.arange(len(names)), -1
    return Codes("class", place[codes], [names[i] for i in order])


def _scale(column: pa.ChunkedArray) -> Codes | None:
    values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    low, high = float(values[finite].min()), float(values[finite].max())
    codes = np.full(len(values), -1, np.int32)
    # The span of halves is never infinite, and its inverse may be.
    codes[finite] = np.round((values[finite] / 2 - low / 2) / (high / 2 - low / 2 or 1) * 255)
    return Codes("number", codes, [f"{low:.6g}", f"{high:.6g}"])
