"""Columns with lists of boxes, as data sets of the hub for detection have: ``objects`` with ``bbox``, ``category``."""

from __future__ import annotations

import pyarrow as pa

from embedpipe.sources.column_types import is_list

#: Names of the field with the boxes; the first that a column has is taken.
BOX = ("bbox", "bboxes", "box", "boxes")

#: End of the option for boxes of left, top, right and bottom.
CORNERS = ":xyxy"


def list_of_boxes(boxes: str | None) -> str | None:
    """Return the column that `SourceOptions.boxes` names, None if it names four columns."""
    return None if boxes is None or "," in boxes else boxes.removesuffix(CORNERS)


def is_list_of_boxes(type: pa.DataType) -> bool:
    """Return whether a column has a list of boxes for each image."""
    fields = fields_of(type)
    return any(name in fields and is_list(fields[name]) for name in BOX)


def fields_of(type: pa.DataType) -> dict[str, pa.DataType]:
    """Return the fields of a column of structs, or of lists of structs, and their types."""
    struct = type.value_type if is_list(type) else type
    return {field.name: field.type for field in struct} if pa.types.is_struct(struct) else {}
