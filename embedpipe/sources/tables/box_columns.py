"""Boxes in the columns of a table: four columns of numbers, or one with the list of boxes of each image.

The data sets of the hub for detection have such a list, ``objects``, with the fields ``bbox`` and ``category``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import DecodeError, Failure, SourceError
from embedpipe.sources.boxes import Box, Crops
from embedpipe.sources.columns.box_lists import BOX, CORNERS, fields_of, list_of_boxes
from embedpipe.sources.columns.class_names import class_names_of
from embedpipe.sources.listing import Listing
from embedpipe.sources.parts import PICTURE, WITHOUT_BOXES, problem_of

#: Names of other fields of a list of boxes; the first that it has is taken.
_CATEGORY = ("category", "categories", "category_id", "label", "labels", "class", "class_label")
_ID = ("id", "bbox_id", "ids")

#: From so many boxes on, numbers that are all in the order of corners are hardly widths and heights.
_ENOUGH = 20


class _Drawn(NamedTuple):
    """A box of a row: the end of its id, the box or why there is none, its label, and where it is, for messages."""

    row: int
    id: str | None
    box: Box | DecodeError
    label: str | None
    place: str


def with_boxes(listing: Listing, boxes: str, margin: float, own_ids: bool, schema: pa.Schema) -> Listing:
    """Return the listing of a table in which each row is a part of its image.

    Its column `PICTURE` has the ids of the images. Of four columns, the ids of the rows are these with the boxes,
    unless ``own_ids``; of a list, the id of the row with that of the box, or its number: ``a.jpg#17``. The categories
    of a list become labels.

    Parameters
    ----------
    listing : Listing
        Its table has the columns that ``boxes`` names.
    boxes : str
        As `SourceOptions.boxes`.
    margin : float
    own_ids : bool
        Whether a column of the table has the ids.
    schema : pyarrow.Schema
        That of the table, with the names of classes.

    Raises
    ------
    SourceError
        A column is missing or has a wrong type.
    """
    column = list_of_boxes(boxes)
    table = listing.table
    drawn = _in_columns(table, boxes, margin) if column is None else _in_lists(table, column, boxes, margin, schema)
    taken = [table.column(name).to_pylist() for name in ("id", "uri", PICTURE)]
    ids: list[str] = []
    fragments: list[str] = []
    kept: list[int] = []
    labels: list[str | None] = []
    failures = list(listing.failures)
    with_parts: set[int] = set()
    for part in drawn:
        id, uri, picture = (values[part.row] for values in taken)
        with_parts.add(part.row)
        problem = part.box if isinstance(part.box, DecodeError) else problem_of(part.box)
        fragment = "" if isinstance(part.box, DecodeError) else part.box.fragment
        if part.id is not None:
            id = f"{id}#{part.id}"
        elif not own_ids:
            id = f"{picture}{fragment}"
        if problem or isinstance(part.box, DecodeError):
            error = DecodeError(f"{problem} ({part.place}, picture {picture!r})")
            failures.append(Failure.of(id, uri, error, "decode"))
            continue
        kept.append(part.row)
        ids.append(id)
        labels.append(part.label)
        fragments.append(part.box.whole_fragment)
    rows = np.array(kept, np.int64)
    uris = [None if (uri := taken[1][row]) is None else uri + end for row, end in zip(kept, fragments, strict=True)]
    changed = {"id": ids, "uri": uris}
    if column is not None:
        has_labels = any(label is not None for label in labels)
        changed |= {"label": labels} if has_labels else {}
        without = table.num_rows - len(with_parts)
        skipped = {**listing.skipped, **({WITHOUT_BOXES: without} if without else {})}
        replaced = has_labels and table.column("label").null_count < table.num_rows
        notes = (*listing.notes, *_corner_notes(fragments, column, boxes))
        notes += (f"labels are the categories of {column!r}, not those of the images",) * replaced
        listing = dataclasses.replace(listing, skipped=skipped, notes=notes)
        table = table.drop_columns(column)
    table = table.take(pa.array(rows))
    for name, values in changed.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    reader = Crops(listing.read, rows, pa.chunked_array([pa.array(fragments, pa.string())]))
    return dataclasses.replace(listing, table=table, read=reader, failures=tuple(failures))


def _in_columns(table: pa.Table, columns: str, margin: float) -> Iterator[_Drawn]:
    names = [name.strip() for name in columns.split(",")]
    for name in names:
        if name not in table.column_names:
            raise SourceError(f"{option('boxes', columns)} must name columns of the table, which has no {name!r}")
        if not (pa.types.is_integer(type := table.schema.field(name).type) or pa.types.is_floating(type)):
            raise SourceError(f"{option('boxes', columns)} must name columns of numbers, and {name!r} holds {type}")
    for row, values in enumerate(zip(*(table.column(name).to_pylist() for name in names), strict=True)):
        left, top, width, height = (float("nan") if value is None else float(value) for value in values)
        yield _Drawn(row, None, Box(left, top, width, height, margin=margin), None, f"row {row + 1}")


def _in_lists(table: pa.Table, column: str, boxes: str, margin: float, schema: pa.Schema) -> Iterator[_Drawn]:
    fields = fields_of(table.schema.field(column).type)
    box, category, own = (next((name for name in names if name in fields), None) for names in (BOX, _CATEGORY, _ID))
    if box is None:
        raise SourceError(
            f"column {column!r} of {option('boxes', boxes)} must have a field {' or '.join(BOX)} with a list of "
            f"boxes for each image, and has {', '.join(fields) or table.schema.field(column).type}"
        )
    classes = class_names_of(schema, column, category) if category else None
    sizes = [table.column(name).to_pylist() for name in ("width", "height") if name in table.column_names]
    for row, value in enumerate(table.column(column).to_pylist()):
        size = tuple(side[row] for side in sizes)
        of = size if len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size) else None
        for number, (numbers, label, id) in enumerate(_objects(value, box, category, own)):
            place = f"box {number + 1} of row {row + 1}"
            try:
                drawn: Box | DecodeError = _box(numbers, boxes.endswith(CORNERS), margin, of)
                name = _label(label, classes)
            except DecodeError as error:
                drawn, name = error, None
            yield _Drawn(row, str(number if id is None else id), drawn, name, place)


def _objects(value: Any, box: str, category: str | None, own: str | None) -> Iterator[tuple[Any, Any, Any]]:
    """Return numbers, category and id of the boxes of an image, from a list of structs or a struct of lists."""
    if isinstance(value, dict):
        count = len(value[box] or ())
        lists = [value[name] if name and value[name] else [None] * count for name in (box, category, own)]
        longest = max(map(len, lists))
        lists = [each + [None] * (longest - len(each)) for each in lists]  # a category without a box is a failure
        yield from zip(*lists, strict=True)
        return
    for each in value or ():
        each = each or {}
        yield each.get(box), each.get(category) if category else None, each.get(own) if own else None


def _box(numbers: Any, corners: bool, margin: float, of: Any) -> Box:
    if not isinstance(numbers, list) or len(numbers) != 4 or not all(isinstance(each, int | float) for each in numbers):
        wanted = "left, top, right, bottom" if corners else "left, top, width, height"
        raise DecodeError(f"a box must be four numbers ({wanted}), got {numbers!r:.80}")
    left, top, third, fourth = map(float, numbers)
    if corners:
        third, fourth = third - left, fourth - top
    return Box(left, top, third, fourth, margin=margin, of=of)


def _label(value: Any, classes: list[str] | None) -> str | None:
    if value is None or (isinstance(value, int) and value == -1):
        return None
    if classes is None or not isinstance(value, int):
        return str(value).strip() or None
    if not 0 <= value < len(classes):
        raise DecodeError(f"the category must be a number of the {len(classes):,} classes, got {value}")
    return classes[value]


def _corner_notes(fragments: list[str], column: str, boxes: str) -> list[str]:
    """Return a note if boxes of left, top, width and height look like corners."""
    if boxes.endswith(CORNERS) or len(fragments) < _ENOUGH:
        return []
    numbers = [[float(number) for number in each.partition("&")[0].partition("=")[2].split(",")] for each in fragments]
    if not all(third > first and fourth > second for first, second, third, fourth in numbers):
        return []
    return [
        f"the boxes of {column!r} are read as left, top, width and height, and all look like left, top, right and "
        f"bottom: if they are, give {option('boxes', column + CORNERS)}"
    ]
