"""Filters: a condition in the words of SQL's WHERE becomes a mask over the rows of a store.

sqlglot parses, Arrow computes. The condition is never run as SQL: each part of the tree that sqlglot returns is
translated by name, and what has no translation here, such as functions and subqueries, is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, suggest
from embedpipe.querying.filter_values import (
    BOOL,
    FLOAT,
    INT,
    TIMESTAMP,
    Compute,
    Value,
    as_time,
    comparable,
    constant,
    divided,
    inverted,
    is_one_of,
    joined,
    like_pattern,
    quoted,
    without_nan,
)
from embedpipe.sources.locations import printable
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from sqlglot.expressions import Expr

#: Characters of the longest condition, which parse in a second.
LONGEST = 100_000
#: Most conditions that AND and OR join: Arrow computes a chain of them by recursion, and ten thousand end the process.
MOST_JOINED = 3_000
#: Characters of a part of a condition that a message shows.
SHOWN = 80
TAKES = "comparisons, AND, OR, NOT, IN, BETWEEN, LIKE, ILIKE, IS NULL and + - * / of columns and values"


def rows_where(store: FeatureStore, condition: str, table: pa.Table | None = None) -> npt.NDArray[np.bool_]:
    """Return which rows of a store pass a condition, as SQL's WHERE would.

    Only the columns of the condition are read. A comparison with NULL is neither true nor false, and a row passes
    where the condition is true. NaN counts as NULL, and so does a division by zero. Dates and times are compared in
    UTC, and may be written as text: ``taken >= '2024-05-01'``. In LIKE, ``%`` stands for any characters and ``_`` for
    one. Names of columns that are words of SQL, or hold spaces, stand in double quotes.

    Parameters
    ----------
    store : FeatureStore
    condition : str
        Comparisons (``= != < <= > >=``), AND, OR, NOT, IN, BETWEEN, LIKE, ILIKE, IS NULL, IS TRUE and arithmetic
        (``+ - * /``) of columns, numbers, texts in single quotes, dates and times, ``true``, ``false`` and ``NULL``.
    table : pyarrow.Table, optional
        All rows in id order, in memory: its columns are used in place of the store's.

    Returns
    -------
    passes : bool array (n_rows,)
        In id order, as all reads of a store.

    Raises
    ------
    UsageError
        If the condition is no such condition, names a column that the store does not have, or compares what cannot be
        compared, such as text with a number.

    Examples
    --------
    >>> from embedpipe.querying import rows_where
    >>> store = embedpipe.FeatureStore("photos.features")
    >>> int(rows_where(store, "label = 'cat' AND source_size > 0").sum())
    12
    """
    translation = _Translation(store, table)
    try:
        passes = translation.boolean(_parse(condition)).expression
    except RecursionError as error:
        raise UsageError(f"{option('where')} must not be nested so deeply, got {condition[:SHOWN]}...") from error
    names = sorted(translation.columns) or ["id"]
    rows = store.table.read(names) if table is None else table.select(names)
    import pyarrow.dataset as ds

    try:
        mask = ds.dataset(rows).to_table(columns={"passes": passes}).column("passes")
    except pa.ArrowInvalid as error:  # an integer that is too large
        raise UsageError(f"{option('where')} {condition!r:.{SHOWN}} cannot be computed: {error}") from error
    return np.asarray(pc.fill_null(mask, False), bool)


def _parse(condition: str) -> Expr:
    import sqlglot
    from sqlglot.errors import ParseError, SqlglotError

    if not isinstance(condition, str) or not condition.strip() or len(condition) > LONGEST:
        got = repr(condition) if not isinstance(condition, str) else f"{len(condition):,} characters"
        raise UsageError(
            f"{option('where')} must be a condition such as \"split = 'train'\", of 1 to {LONGEST:,} "
            f"characters, got {got}"
        )
    if printable(condition) != condition:
        raise UsageError(
            f"{option('where')} must be valid Unicode, got {printable(condition)[:SHOWN]!r}: check the encoding"
        )
    try:
        return sqlglot.parse_one(condition, dialect="duckdb", into=sqlglot.expressions.Condition)
    except SqlglotError as error:
        problem = next(iter(error.errors), {}) if isinstance(error, ParseError) else {}
        before, at = problem.get("start_context", ""), problem.get("highlight", "")
        place = f" at {at!r}, after {before.strip()[-SHOWN:]!r}" if before.strip() and at else ""
        raise UsageError(
            f"{option('where')} must be a condition of SQL, got {condition[:SHOWN]!r}: it cannot be read{place}. "
            "Write texts in single quotes, and names that are words of SQL in double quotes"
        ) from error


class _Translation:
    """Translates the tree of a condition, and collects the columns that it names."""

    def __init__(self, store: FeatureStore, table: pa.Table | None) -> None:
        from sqlglot import expressions as sql

        self._store = store
        self._schema: pa.Schema = store.schema if table is None else table.schema
        self._known: list[str] = store.data_columns if table is None else table.column_names
        self.columns: set[str] = set()
        self._joined = 0
        self._comparisons: dict[type, Compute] = {
            sql.EQ: pc.equal,
            sql.NEQ: pc.not_equal,
            sql.LT: pc.less,
            sql.LTE: pc.less_equal,
            sql.GT: pc.greater,
            sql.GTE: pc.greater_equal,
        }
        self._arithmetic: dict[type, Compute] = {
            sql.Add: pc.add_checked,
            sql.Sub: pc.subtract_checked,
            sql.Mul: pc.multiply_checked,
            sql.Div: divided,
        }
        #: What translates a part, and the fields of that part that it knows.
        self._parts: dict[type, tuple[Callable[[Any], Value], str]] = {
            **dict.fromkeys(self._comparisons, (self._comparison, "this expression")),
            **dict.fromkeys(self._arithmetic, (self._calculation, "this expression")),
            sql.And: (lambda node: self._junction(node, pc.and_kleene), "this expression"),
            sql.Or: (lambda node: self._junction(node, pc.or_kleene), "this expression"),
            sql.Not: (lambda node: inverted(self.boolean(node.this)), "this"),
            sql.Paren: (lambda node: self.value(node.this), "this"),
            sql.Neg: (self._negative, "this"),
            sql.Is: (self._is, "this expression"),
            sql.In: (self._in, "this expressions"),
            sql.Between: (self._between, "this low high"),
            sql.Like: (self._like, "this expression negate"),
            sql.ILike: (self._like, "this expression negate"),
            sql.Escape: (self._escape, "this expression"),
            sql.Column: (self._column, "this table db catalog"),
            sql.Literal: (self._literal, "this is_string"),
            sql.Boolean: (lambda node: constant(node.this, BOOL, str(node.this).lower()), "this"),
            sql.Null: (lambda node: constant(None, pa.null(), "NULL"), ""),
            sql.Cast: (self._date, "this to"),
        }

    def boolean(self, node: Expr) -> Value:
        """Return a part that is true or false."""
        part = self.value(node)
        if part.kind == "NULL":
            return constant(None, BOOL, part.words)
        if part.kind != "true or false":
            raise UsageError(
                f"{option('where')} must be true or false for each row, got {part.words}, which is {part.kind}: "
                "compare it with a value"
            )
        return part

    def value(self, node: Expr) -> Value:
        """Return any part."""
        translate, known = self._parts.get(type(node), (None, ""))
        given = {name for name, value in node.args.items() if value} - {"safe", "typed"}
        if translate is None or given - set(known.split()):
            raise UsageError(f"{option('where')} takes {TAKES}, got {type(node).__name__}: {_words(node)}")
        return translate(node)

    def _junction(self, node: Any, compute: Compute) -> Value:
        parts = [self.boolean(part).expression for part in node.flatten()]
        self._joined += len(parts)
        if self._joined > MOST_JOINED:
            raise UsageError(
                f"{option('where')} must join at most {MOST_JOINED:,} conditions by AND and OR: write many values of a "
                "column as IN (...)"
            )
        return Value(joined(compute, parts), BOOL, _words(node))

    def _comparison(self, node: Any) -> Value:
        return self._compare(self._comparisons[type(node)], self.value(node.this), self.value(node.expression))

    def _compare(self, compute: Compute, left: Value, right: Value) -> Value:
        words = f"{left.words} and {right.words}"
        if "NULL" in (left.kind, right.kind):
            return constant(None, BOOL, words)
        left, right = comparable(left, right)
        return Value(compute(left.expression, right.expression), BOOL, words)

    def _calculation(self, node: Any) -> Value:
        left, right = self.value(node.this), self.value(node.expression)
        words = _words(node)
        for part in (left, right):
            if part.kind not in ("a number", "NULL"):
                raise UsageError(f"{words} must be of numbers, and {part.words} is {part.kind}")
        if "NULL" in (left.kind, right.kind):
            return constant(None, pa.null(), words)
        compute = self._arithmetic[type(node)]
        left, right = (part.cast(FLOAT) if compute is divided else part for part in comparable(left, right))
        result = compute(left.expression, right.expression)
        return Value(without_nan(result, left.type), left.type, words)

    def _negative(self, node: Any) -> Value:
        part = self.value(node.this)
        if part.literal is not None and part.kind == "a number":
            return constant(-part.literal, part.type, f"-{part.words}")
        if part.kind != "a number":
            raise UsageError(f"{_words(node)} must be of a number, and {part.words} is {part.kind}")
        return Value(pc.negate_checked(part.expression), part.type, _words(node))

    def _is(self, node: Any) -> Value:
        part, word = self.value(node.this), self.value(node.expression)
        if word.kind == "NULL":
            return Value(pc.is_null(part.expression), BOOL, _words(node))
        if word.kind != "true or false" or word.literal is None:
            raise UsageError(f"IS must be followed by NULL, true or false, got {word.words}: compare with = instead")
        same = self._compare(pc.equal, self.boolean(node.this), word)
        return Value(pc.coalesce(same.expression, pc.scalar(False)), BOOL, _words(node))

    def _in(self, node: Any) -> Value:
        part, items = self.value(node.this), [self.value(item) for item in node.expressions]
        if not items:
            raise UsageError(f"IN must be followed by values in brackets, got {_words(node)}")
        # Values of one type are looked up together: thousands of comparisons would be too many for Arrow.
        parts: list[Any] = []
        sets: dict[pa.DataType, tuple[Value, list[Any]]] = {}
        for item in items:
            if item.literal is None or item.kind not in ("text", "a number"):
                parts.append(self._compare(pc.equal, part, item).expression)
                continue
            left, right = comparable(part, item)
            sets.setdefault(right.type, (left, []))[1].append(right.literal)
        if len(parts) > MOST_JOINED:
            raise UsageError(f"IN must have at most {MOST_JOINED:,} values that are no text and no number")
        parts += [is_one_of(left, literals, type_) for type_, (left, literals) in sets.items()]
        return Value(joined(pc.or_kleene, parts), BOOL, _words(node))

    def _between(self, node: Any) -> Value:
        part, low, high = self.value(node.this), self.value(node.args["low"]), self.value(node.args["high"])
        ends = [self._compare(pc.greater_equal, part, low), self._compare(pc.less_equal, part, high)]
        return Value(pc.and_kleene(*(end.expression for end in ends)), BOOL, _words(node))

    def _like(self, node: Any, escape: str = "") -> Value:
        part, pattern = self.value(node.this), self.value(node.expression)
        if "NULL" in (part.kind, pattern.kind):
            return constant(None, BOOL, _words(node))
        if part.kind != "text":
            raise UsageError(f"LIKE must be of text, and {part.words} is {part.kind}: compare it with = < or >")
        if not isinstance(pattern.literal, str):
            raise UsageError(f"LIKE must be followed by a pattern in single quotes, got {pattern.words}")
        arrows = like_pattern(pattern.literal, escape)
        match = pc.match_like(part.expression, arrows, ignore_case=type(node).__name__ == "ILike")
        result = Value(match, BOOL, _words(node))
        return inverted(result) if node.args.get("negate") else result

    def _escape(self, node: Any) -> Value:
        sign = node.expression.this if node.expression.is_string else ""
        if type(node.this).__name__ not in ("Like", "ILike") or len(sign) != 1:
            raise UsageError(f"ESCAPE must follow LIKE and name one character, got {_words(node)}")
        return self._like(node.this, sign)

    def _column(self, node: Any) -> Value:
        name = ".".join(part.name for part in node.parts)
        known = self._known
        if name not in known:
            same = [column for column in known if column.lower() == name.lower()]
            if name in self._store.columns:
                raise UsageError(f"column {name!r} holds vectors, which {option('where')} cannot compare")
            if not same:
                raise UsageError(
                    f"{self._store.path!r} has no column {name!r} ({option('where')}){suggest(name, known)}. "
                    f"A text stands in single quotes: {quoted(name)}"
                )
            if len(same) > 1:
                raise UsageError(
                    f"column {name!r} ({option('where')}) must be one of {', '.join(map(repr, same))}, which differ in "
                    "capitals only: write it as it is there"
                )
            (name,) = same
        self.columns.add(name)
        type_, expression = self._schema.field(name).type, pc.field(name)
        wide = FLOAT if pa.types.is_decimal(type_) else INT if pa.types.is_integer(type_) else type_
        return Value(without_nan(expression.cast(wide), wide), wide, name)

    def _literal(self, node: Any) -> Value:
        if node.is_string:
            return constant(node.this, pa.string(), quoted(node.this))
        digits = node.this.lstrip("0") or "0"  # Python refuses to read thousands of them as an integer
        is_int = node.this.isdecimal() and len(digits) <= len(str(2**63)) and int(digits) < 2**63
        number = int(digits) if is_int else float(node.this)
        return constant(number, INT if isinstance(number, int) else FLOAT, node.this)

    def _date(self, node: Any) -> Value:
        """Translate ``DATE '2024-05-01'`` and ``TIMESTAMP '2024-05-01 10:00'``, which sqlglot reads as casts."""
        if not node.this.is_string or not node.to.is_type("date", "timestamp", "timestamptz", "timestampntz"):
            raise UsageError(f"{option('where')} takes {TAKES}, got CAST: {_words(node)}")
        return as_time(self._literal(node.this)).cast(pa.date32() if node.to.is_type("date") else TIMESTAMP)


def _words(node: Any) -> str:
    words = " ".join(node.sql(dialect="duckdb").split())
    return words if len(words) <= SHOWN else words[: SHOWN - 3] + "..."
