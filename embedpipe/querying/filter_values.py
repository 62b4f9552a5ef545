"""Values of a filter: parts of a condition with their types, and how two of them become comparable."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

Compute = Callable[[Any, Any], Any]
BOOL, INT, FLOAT, TIMESTAMP = pa.bool_(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, eq=False)
class Value:
    """A part of a condition: what Arrow computes, its type, its words for messages, and its value if it has one."""

    expression: Any
    type: pa.DataType
    words: str
    literal: Any = None

    @property
    def kind(self) -> str:
        """What it is, in the words of a message."""
        kinds = {
            "text": pa.types.is_string,
            "a number": lambda type_: pa.types.is_integer(type_) or pa.types.is_floating(type_),
            "true or false": pa.types.is_boolean,
            "a date": pa.types.is_date,
            "a time": pa.types.is_timestamp,
            "NULL": pa.types.is_null,
            "bytes": pa.types.is_binary,
        }
        return next((name for name, is_type in kinds.items() if is_type(self.type)), str(self.type))

    def cast(self, type_: pa.DataType) -> Value:
        """Return the same in another type."""
        if self.type == type_:
            return self
        # Not safe: an integer above 2^53 becomes the nearest float64, which is what a comparison with one needs.
        return Value(self.expression.cast(type_, safe=False), type_, self.words, self.literal)


def constant(value: Any, type_: pa.DataType, words: str) -> Value:
    """Return a value that a condition names."""
    return Value(pc.scalar(pa.scalar(value, type_)), type_, words, value)


def inverted(part: Value) -> Value:
    """Return NOT of what is true or false."""
    return Value(pc.invert(part.expression), BOOL, f"NOT {part.words}")


def joined(compute: Compute, parts: Sequence[Any]) -> Any:
    """Join parts in pairs, so that thousands of them are not nested thousands of levels deep."""
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [compute(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return parts[0]


def without_nan(expression: Any, type_: pa.DataType) -> Any:
    """Return numbers in which NaN is NULL."""
    if not pa.types.is_floating(type_):
        return expression
    return pc.if_else(pc.is_nan(expression), pa.scalar(None, type_), expression)


def divided(left: Any, right: Any) -> Any:
    """Return the quotient of two float64 numbers; by zero, it is NULL."""
    return pc.if_else(pc.equal(right, 0.0), pa.scalar(None, FLOAT), pc.divide(left, right))


def comparable(left: Value, right: Value) -> tuple[Value, Value]:
    """Return two parts in one type. Raises UsageError, naming both, where they have none in common."""
    times = ("a date", "a time")
    if left.kind in times and right.kind == "text" and right.literal is not None:
        right = as_time(right)
    elif right.kind in times and left.kind == "text" and left.literal is not None:
        left = as_time(left)
    if left.kind == right.kind == "a number":
        return _same_number(left, right)
    if left.kind in times and right.kind in times:
        return (left, right) if left.type == right.type else (left.cast(TIMESTAMP), right.cast(TIMESTAMP))
    if left.kind != right.kind or left.kind == "bytes":
        raise UsageError(
            f"{option('where')} cannot compare {left.words}, which is {left.kind}, with {right.words}, which is "
            f"{right.kind}{_advice(left, right) or _advice(right, left)}"
        )
    return left, right


def _advice(text: Value, number: Value) -> str:
    """Return how a text and a number become comparable, where it is a matter of quotes."""
    if (text.kind, number.kind) != ("text", "a number"):
        return ""
    if text.literal is None and number.literal is not None:
        return f": write {quoted(number.words)} to compare texts"
    is_number = text.literal is not None and re.fullmatch(r"[+-]?\d+(\.\d+)?", text.literal)
    return f": write {text.literal} without quotes" if is_number else ""


def _same_number(left: Value, right: Value) -> tuple[Value, Value]:
    """Return two numbers in one type: 0.9 equals a float32 0.9, as people write it."""
    if left.type == right.type:
        return left, right
    for value, other in ((left, right), (right, left)):
        if value.literal is not None and other.type == pa.float32():
            return left.cast(pa.float32()), right.cast(pa.float32())
    return left.cast(FLOAT), right.cast(FLOAT)


def is_one_of(part: Value, literals: Sequence[Any], type_: pa.DataType) -> Any:
    """Return whether a part is one of some values of a type; NULL where it is NULL."""
    expression = part.expression
    if pa.types.is_floating(type_):  # hashes tell -0.0 from 0.0
        literals, expression = [float(each) + 0.0 for each in literals], pc.add(expression, 0.0)
        expression = expression.cast(type_, safe=False)
    known = pa.array(literals)
    isin = pc.is_in(expression, value_set=known.cast(type_, safe=False))
    return pc.if_else(pc.is_valid(expression), isin, pa.scalar(None, BOOL))


def as_time(text: Value) -> Value:
    """Return a text as the date or time that it is."""
    try:
        if len(text.literal) == len("2024-05-01"):
            return constant(date.fromisoformat(text.literal), pa.date32(), text.words)
        time = datetime.fromisoformat(text.literal)
        utc = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        return constant(utc, TIMESTAMP, text.words)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text.words} must be a date or time such as '2024-05-01' or '2024-05-01 10:30', in UTC"
        ) from error


def like_pattern(pattern: str, escape: str) -> str:
    """Return a LIKE pattern as Arrow reads it, where a backslash always escapes; in SQL, what ESCAPE names."""
    parts = re.findall(rf"{re.escape(escape)}.|." if escape else ".", pattern, re.DOTALL)
    if escape and escape in parts:
        raise UsageError(f"LIKE's ESCAPE character must be followed by another one, got {quoted(pattern)}")
    return "".join(
        f"\\{part[1]}" if len(part) == 2 and part[1] in "%_\\" else part[-1].replace("\\", "\\\\") for part in parts
    )


def quoted(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
