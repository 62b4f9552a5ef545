"""Columns of a table as numbers: which are numbers, which categories, and which say the label or the row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.store.schema import BY_HAND, EXCLUDED, KEY_FIELDS, PERCEPTUAL_HASH, PICTURE_COUNTS

Kind = Literal["number", "category"]
Values = npt.NDArray[np.float32]

#: Codes of categories that are missing, and of those that no row had when the head was fitted.
MISSING, UNSEEN = -1, -2
#: Columns that the store writes: they say where a row comes from.
RESERVED = {field.name for field in KEY_FIELDS} | {BY_HAND, EXCLUDED, PERCEPTUAL_HASH, PICTURE_COUNTS, "split"}
#: Most categories of a column: each takes a column of the one-hot matrix.
MOST_CATEGORIES = 1000
#: With fewer rows, a column decides the label or counts the rows by chance.
FEW_ROWS = 10
#: Correlation with the numbers to learn from which a column is taken for them.
SAME = 0.9999


@dataclass(frozen=True)
class TableColumn:
    """A column beside the vectors.

    Attributes
    ----------
    name : str
    kind : str
        ``number``, or ``category`` for text and booleans.
    categories : tuple of str
        The values of all rows, sorted; a value's code is its position. Codes are names: what is learned of a category
        is learned inside the folds.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [self.name, *self.categories]
        if not all(isinstance(name, str) for name in names) or self.kind not in get_args(Kind):
            raise ValueError(f"{self.name!r} is not a column")


def learn_columns(rows: pa.Table, names: Sequence[str], taken: Collection[str | None]) -> tuple[TableColumn, ...]:
    """Return the columns of these names, with the categories of all rows.

    Parameters
    ----------
    rows : pyarrow.Table
    names : sequence of str
    taken : collection of str
        Columns with another use, such as the label.

    Raises
    ------
    UsageError
        If a column is named twice, has another use, or holds neither numbers nor categories.
    TrainingDataError
        If a column has no value, or its values name the rows.
    """
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"{option('features')} must name each column once, got {twice[0]!r} twice")
    for name in names:
        if name in taken or name in RESERVED:
            use = "is the label, a weight or a group" if name in taken else "says where a row comes from"
            raise UsageError(f"{option('features')} must be known of new items, and column {name!r} {use}")
    return tuple(_learn(rows.column(name), name) for name in names)


def _learn(column: pa.ChunkedArray, name: str) -> TableColumn:
    kind = column.type
    if pc.all(pc.is_null(column, nan_is_null=True)).as_py():
        raise TrainingDataError(
            f"column {name!r} of {option('features')} has no value in the labelled rows: leave it out"
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if pa.types.is_integer(kind) and _counts_rows(column):
            raise TrainingDataError(f"column {name!r} of {option('features')} numbers the rows: leave it out")
        return TableColumn(name, "number")
    if not (pa.types.is_string(kind) or pa.types.is_boolean(kind)):
        raise UsageError(
            f"{option('features')} must be columns of numbers, text or booleans, and {name!r} holds {kind}: write it "
            "as a number, such as a year"
        )
    counts = pc.value_counts(_texts(column).drop_null())
    single = pc.sum(pc.equal(pc.struct_field(counts, "counts"), 1)).as_py()
    if (len(column) >= FEW_ROWS and single > len(column) / 2) or len(counts) > MOST_CATEGORIES:
        raise TrainingDataError(
            f"column {name!r} of {option('features')} has {len(counts):,} different texts in {len(column):,} rows, and "
            f"a category must return (at most {MOST_CATEGORIES:,} of them): leave it out, or embed the texts"
        )
    return TableColumn(name, "category", tuple(sorted(pc.struct_field(counts, "values").to_pylist())))


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _counts_rows(column: pa.ChunkedArray) -> bool:
    """Return whether integers are those of a row number: all different, without a gap."""
    if len(column) < FEW_ROWS or column.null_count or pc.count_distinct(column).as_py() < len(column):
        return False
    ends = pc.min_max(column).as_py()
    return bool(ends["max"] - ends["min"] == len(column) - 1)


def require_columns(columns: Sequence[TableColumn], known: Collection[str], where: str) -> None:
    """Raise UsageError, with the names of those that are missing, unless all columns are known."""
    if missing := [column.name for column in columns if column.name not in known]:
        needed = ", ".join(column.name for column in columns)
        raise UsageError(
            f"the head learned from vectors and the columns {needed}, and {where} has no {', '.join(missing)}: predict "
            "a table or a store that has all of them"
        )


def refuse_columns(columns: Sequence[TableColumn], why: str) -> None:
    """Raise UsageError if a head has columns beside the vectors."""
    if columns:
        names = ", ".join(column.name for column in columns)
        raise UsageError(f"{why}, and the head learned from the columns {names} too: fit one without {names}")


def column_values(columns: Sequence[TableColumn], table: pa.Table) -> Values:
    """Return columns as float32 (n_rows, n_columns): numbers, NaN where missing, and codes of categories.

    Raises UsageError, naming the row, for a value that is no finite number.
    """
    values = np.empty((table.num_rows, len(columns)), np.float32)
    for place, column in enumerate(columns):
        given = table.column(column.name)
        values[:, place] = _codes(column, given) if column.kind == "category" else _numbers(column.name, given)
    return values


def _codes(column: TableColumn, given: pa.ChunkedArray) -> npt.NDArray[Any]:
    texts, categories = _texts(given), list(column.categories)
    if {each.lower() for each in categories} == {"true", "false"} and len(categories) == 2:
        # Programs write booleans as True, TRUE and true.
        texts, categories = pc.utf8_lower(texts), [each.lower() for each in categories]
    codes = pc.fill_null(pc.index_in(texts, value_set=pa.array(categories, pa.string())), UNSEEN)
    return np.where(np.asarray(pc.is_null(texts)), MISSING, np.asarray(codes))


def _numbers(name: str, given: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    try:
        numbers: npt.NDArray[np.float64] = np.asarray(given.cast(pa.float64()).to_numpy().astype(np.float64))
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"column {name!r} must hold numbers, as when the head was fitted: {error}") from error
    with np.errstate(over="ignore"):
        beyond = np.isinf(numbers.astype(np.float32))
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        most = np.finfo(np.float32).max
        raise UsageError(
            f"column {name!r} must hold finite numbers of at most {most:.2g}, and row {row + 1:,} has {numbers[row]}: "
            "correct it, or leave it empty"
        )
    return numbers


def join_columns(vectors: npt.NDArray[np.float32], values: Values) -> npt.NDArray[np.float32]:
    """Return rows of vectors, each followed by the values of its columns."""
    return np.hstack([vectors, values]) if values.shape[1] else vectors


def value_notes(columns: Sequence[TableColumn], values: Values) -> list[str]:
    """Return notes on values that are missing, and on categories that no row had when the head was fitted."""
    notes = []
    for column, given in zip(columns, values.T, strict=True):
        is_number = column.kind == "number"
        missing = int((np.isnan(given) if is_number else given == MISSING).sum())
        if missing:
            instead = "the median stands for them, with a mark" if is_number else "they are a category of their own"
            notes.append(f"column {column.name!r}: {missing:,} of {len(given):,} values are missing; {instead}")
        if not is_number and (unseen := int((given == UNSEEN).sum())):
            notes.append(
                f"column {column.name!r}: {unseen:,} of {len(given):,} values were in no row that the head learned "
                "from; they count for nothing"
            )
    return notes


def leak_notes(columns: Sequence[TableColumn], values: Values, y: npt.NDArray[Any]) -> list[str]:
    """Return a note on each column whose value decides the label.

    Parameters
    ----------
    values : float32 array (n_samples, n_columns)
    y : array (n_samples,), or bool (n_samples, n_labels)

    Raises
    ------
    TrainingDataError
        If a column is the label in other words: each value has one label, and each label one value; or, of numbers,
        a multiple of it.
    """
    notes = []
    if y.ndim == 2:
        y = np.unique(y, axis=0, return_inverse=True)[1].reshape(-1)
    for column, given in zip(columns, values.T, strict=True):
        known = np.isfinite(given) & (given != MISSING) if column.kind == "category" else np.isfinite(given)
        if known.sum() < FEW_ROWS:
            continue
        leak = _leak(given[known], y[known], column.kind == "number")
        if leak == "equal":
            raise TrainingDataError(
                f"column {column.name!r} of {option('features')} is the label in other words: leave it out"
            )
        if leak == "decides":
            notes.append(
                f"each value of column {column.name!r} has one label only: leave it out if it is not known before the "
                "label"
            )
    return notes


def _leak(given: Values, y: npt.NDArray[Any], is_number: bool) -> Literal["equal", "decides", ""]:
    """Return whether values are the labels under other names, or each has one label only and returns."""
    if y.dtype.kind == "f":
        numbers = np.stack([given.astype(np.float64), y])
        constant = (numbers.std(axis=1) == 0).any()
        return "equal" if is_number and not constant and abs(np.corrcoef(numbers)[0, 1]) > SAME else ""
    kinds, position = np.unique(given, return_inverse=True)
    labels, label = np.unique(y, return_inverse=True)
    pairs = len(np.unique(position * len(labels) + label))
    if pairs > len(kinds) or len(kinds) < 2 or len(kinds) > len(given) / 2:
        return ""
    return "equal" if len(kinds) == len(labels) else "decides"
