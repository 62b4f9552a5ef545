"""Listings of parts of pictures: rows of a table with boxes, and annotations of COCO and YOLO."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import DecodeError, Failure, SourceError
from embedpipe.sources.access.roots import Access, refuse_foreign
from embedpipe.sources.boxes import Box, Crops
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import size_and_time
from embedpipe.sources.reading import Files

#: The column with the id of the picture that an item is a part of.
PICTURE = "picture"


class Part(NamedTuple):
    """An annotation of a picture.

    Parameters
    ----------
    picture : int
        Position of the picture among those of the source.
    id : str
    box : Box or DecodeError
        The box, or why there is none.
    label, split : str or None
    place : str
        Where the annotation is, for messages.
    """

    picture: int
    id: str
    box: Box | DecodeError
    label: str | None
    split: str | None
    place: str


def list_parts(root: str, pictures: Sequence[tuple[str, str]], parts: Iterable[Part], access: Access) -> Listing:
    """List parts of pictures, and count the pictures without any.

    Parameters
    ----------
    root : str
    pictures : sequence of (id, uri)
    parts : iterable of Part
        A part with a bad box becomes a failure.
    access : Access
        What the uris may name.

    Raises
    ------
    SourceError
        None of the pictures may be read.
    """
    uris = pa.chunked_array([pa.array([uri for _, uri in pictures], pa.string())])
    refuse_foreign(uris, access, root)
    facts = [size_and_time(uri) for _, uri in pictures]
    builder = ListingBuilder()
    files = array("q")
    fragments: list[str] = []
    failures: list[Failure] = []
    with_parts: set[int] = set()
    for part in parts:
        with_parts.add(part.picture)
        name, uri = pictures[part.picture]
        if problem := part.box if isinstance(part.box, DecodeError) else _problem(part.box):
            error = DecodeError(f"{problem} ({part.place}, picture {name!r})")
            failures.append(Failure.of(part.id, uri, error, "decode"))
            continue
        assert isinstance(part.box, Box)
        files.append(part.picture)
        fragments.append(part.box.whole_fragment)
        size, modified = facts[part.picture]
        builder.add(part.id, uri + fragments[-1], size, modified, part.label, part.split, {PICTURE: name})
    rows = np.frombuffer(files, np.int64) if files else np.empty(0, np.int64)
    reader = Crops(Files(uris, "image", access), rows, pa.chunked_array([pa.array(fragments, pa.string())]))
    without = len(pictures) - len(with_parts)
    skipped = {"pictures without boxes": without} if without else {}
    return Listing(builder.finish(), root, reader, tuple(failures), skipped)


def _problem(box: Box) -> DecodeError | None:
    try:
        box.check()
    except DecodeError as error:
        return error
    return None


def with_boxes(listing: Listing, columns: str, margin: float, own_ids: bool) -> Listing:
    """Return the listing of a table in which each row is the part of its image that four columns describe.

    Its column `PICTURE` has the ids of the images. Those of the rows are these with the boxes, unless ``own_ids``.

    Raises
    ------
    SourceError
        A column is missing or holds no numbers.
    """
    names = [name.strip() for name in columns.split(",")]
    table = listing.table
    for name in names:
        if name not in table.column_names:
            raise SourceError(f"{option('boxes', columns)} must name columns of the table, which has no {name!r}")
        if not (pa.types.is_integer(type := table.schema.field(name).type) or pa.types.is_floating(type)):
            raise SourceError(f"{option('boxes', columns)} must name columns of numbers, and {name!r} holds {type}")
    numbers = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    places = (table.column(name).to_pylist() for name in ("id", "uri", PICTURE))
    ids: list[str] = []
    uris: list[str | None] = []
    fragments: list[str] = []
    kept: list[int] = []
    failures = list(listing.failures)
    for row, (values, id, uri, picture) in enumerate(zip(numbers, *places, strict=True)):
        left, top, width, height = (float("nan") if value is None else float(value) for value in values)
        box = Box(left, top, width, height, margin=margin)
        id = id if own_ids else f"{picture}{box.fragment}"
        if problem := _problem(box):
            failures.append(
                Failure.of(id, uri, DecodeError(f"{problem} (row {row + 1}, picture {picture!r})"), "decode")
            )
            continue
        kept.append(row)
        ids.append(id)
        fragments.append(box.whole_fragment)
        uris.append(None if uri is None else uri + fragments[-1])
    rows = np.array(kept, np.int64)
    table = table.take(pa.array(rows))
    for name, column in (("id", ids), ("uri", uris)):
        table = table.set_column(table.column_names.index(name), name, pa.array(column, pa.string()))
    reader = Crops(listing.read, rows, pa.chunked_array([pa.array(fragments, pa.string())]))
    return dataclasses.replace(listing, table=table, read=reader, failures=tuple(failures))
