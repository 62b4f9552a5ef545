"""Previews of items for a page: a small picture, the beginning of a text, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from embedpipe.decoding import decode_image, decode_text
from embedpipe.errors import EmbedpipeError, ItemError
from embedpipe.report.pictures.thumbnails import jpeg_data_url
from embedpipe.sources.file_types import is_payload_name
from embedpipe.sources.opening import read_uri

#: JPEG quality of a picture.
QUALITY = 80
#: Characters of a text that are shown.
MAX_CHARACTERS = 400
READERS = 8


@dataclass(frozen=True)
class Preview:
    """Preview of one item: exactly one attribute is not empty.

    Attributes
    ----------
    picture : str
        A small JPEG as a ``data:`` URI.
    text : str
        The beginning of the text.
    reason : str
        The reason why there is neither.
    """

    picture: str = ""
    text: str = ""
    reason: str = ""


def preview_items(items: Sequence[tuple[str | None, str | None]], side: int) -> list[Preview]:
    """Return a preview of each item, read in parallel threads.

    Parameters
    ----------
    items : sequence of (uri, text)
        The location of each item, and its text if the store has it.
    side : int
        Longer side of a picture in pixels.
    """
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda item: _preview(item[0], item[1], side), items))


def _preview(uri: str | None, text: str | None, side: int) -> Preview:
    if text is not None:
        return _beginning(text)
    if uri is None:
        return Preview(reason="the store has no location of this item")
    try:
        return Preview(picture=_shrunk(decode_image(read_uri(uri)), side))
    except ItemError as error:
        reason = str(error)
    if not (is_payload_name(uri, "text") or uri.startswith(("table://", "parquet://"))):  # a store may name any file
        return Preview(reason=f"cannot be shown: {reason}")
    try:
        decoded = decode_text(read_uri(uri, "text")).text
    except EmbedpipeError:  # not a text either, or a text whose encoding is unknown
        return Preview(reason=f"cannot be shown: {reason}")
    return _beginning(decoded)


def _beginning(text: str) -> Preview:
    return Preview(text=text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…")


def _shrunk(picture: Image.Image, side: int) -> str:
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return jpeg_data_url(picture, QUALITY)
