"""What an item is, small enough for a page: its picture, the beginning of its text, or why there is neither."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from embedpipe.decoding import decode_image, decode_text
from embedpipe.errors import EmbedpipeError, ItemError
from embedpipe.evaluation.comparison.result import WrongItem
from embedpipe.sources.opening import read_uri

#: In pixels, the longer side.
SIDE = 176
#: Letters of a text.
LETTERS = 400
READERS = 8


@dataclass(frozen=True)
class Preview:
    """One of the three.

    Attributes
    ----------
    picture : str
        A JPEG as a ``data:`` URI.
    text : str
        A text's beginning.
    reason : str
        Why neither can be shown.
    """

    picture: str = ""
    text: str = ""
    reason: str = ""


def preview_items(items: Sequence[WrongItem]) -> list[Preview]:
    """Read and shrink items, several at a time; one that cannot be read says why."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_preview, items))


def _preview(item: WrongItem) -> Preview:
    if item.text is not None:
        return _beginning(item.text)
    if (uri := item.uri) is None:
        return Preview(reason="the store does not know where it is")
    try:
        return Preview(picture=_shrunk(decode_image(read_uri(uri))))
    except ItemError as error:
        reason = str(error)
    try:
        text = decode_text(read_uri(uri, "text")).text
    except EmbedpipeError:  # it is no text either, or of an encoding that takes an extra to detect
        return Preview(reason=f"cannot be shown: {reason}")
    return _beginning(text)


def _beginning(text: str) -> Preview:
    return Preview(text=text if len(text) <= LETTERS else f"{text[:LETTERS]}…")


def _shrunk(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
