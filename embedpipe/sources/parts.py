"""Listings of parts of pictures: the annotations of COCO and YOLO."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from embedpipe.errors import DecodeError, Failure
from embedpipe.sources.access.roots import Access, refuse_foreign
from embedpipe.sources.boxes import Box, Crops
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import size_and_time
from embedpipe.sources.reading import Files

#: The column with the id of the picture that an item is a part of.
PICTURE = "picture"

#: What `Listing.skipped` calls pictures in which nothing is drawn.
WITHOUT_BOXES = "pictures without boxes"


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
        if problem := part.box if isinstance(part.box, DecodeError) else problem_of(part.box):
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
    skipped = {WITHOUT_BOXES: without} if without else {}
    return Listing(builder.finish(), root, reader, tuple(failures), skipped)


def problem_of(box: Box) -> DecodeError | None:
    """Return why a box has no pixels, None if it may have."""
    try:
        box.check()
    except DecodeError as error:
        return error
    return None
