"""Ids as text, whatever type a table gives them in."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import SourceError
from embedpipe.sources.columns.conversion import converted, plain_column

#: By the bits of floats: above this they skip integers, and two ids may have become one number.
LARGEST_EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}


def id_texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return ids as text. Floats that are whole are integers, of which pandas makes floats where one is missing.

    Raises
    ------
    SourceError
        A value has no text, such as a list, or is a float that does not hold an integer of so many digits.
    """
    if not pa.types.is_integer(column.type):
        column = plain_column(column, name)
    if pa.types.is_floating(column.type):
        column = _whole(column, name)
    return converted(column, lambda part: part.cast(pa.string()), name, "ids as text or integers")


def _whole(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return floats as integers if all are whole; NaN is missing."""
    bits = column.type.bit_width
    column = column.cast(pa.float32()) if bits == 16 else column  # of which few functions know
    column = pc.if_else(pc.is_nan(column), None, column)
    if pc.all(pc.and_(pc.is_finite(column), pc.equal(pc.floor(column), column))).as_py() is False:
        return column
    largest = pc.max(pc.abs(column)).as_py() or 0.0
    if largest > LARGEST_EXACT[bits]:
        raise SourceError(
            f"column {name!r} must hold ids as text or integers, and holds floats such as {largest:.0f}, in which the "
            "last digits of an id are lost: read the column as text"
        )
    return column.cast(pa.int64())
