"""A limit for the memory of images that are decoded at the same time."""

from __future__ import annotations

import contextlib
import functools
import io
import threading
from collections.abc import Iterator
from typing import Any

import psutil
from PIL import Image

from embedpipe.decoding.formats.tiff import TiffPage
from embedpipe.decoding.image import readable_formats, silence_pillow
from embedpipe.decoding.jpeg import read_header
from embedpipe.sources.boxes import Crop
from embedpipe.sources.tiff_pages import is_tiff

#: Bytes that decoding takes for each pixel: of a plain JPEG, and of other files, whose samples may have 32 bits.
_BYTES_OF_JPEG, _BYTES = 4, 16

#: Images of fewer bytes need no room.
_SMALL = 1 << 26

#: JPEG files of fewer bytes hold small images only.
_SMALL_JPEG = 1 << 15

#: Images that decode to so many bytes together are decoded at the same time, at least.
_LEAST = 1 << 31


class Memory:
    """Bytes that threads share: who needs room waits for others to leave."""

    def __init__(self, total: int) -> None:
        self._total, self._used = total, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take room for a block of code. What is larger than all the room gets in alone."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


@functools.cache
def _memory() -> Memory:
    return Memory(max(_LEAST, psutil.virtual_memory().total // 4))


def room(payload: Any) -> contextlib.AbstractContextManager[None]:
    """Return a context that waits until there is memory to decode an image; nothing is read for small ones."""
    size = decoded_size(payload)
    return _memory().hold(size) if size > _SMALL else contextlib.nullcontext()


def decoded_size(payload: Any) -> int:
    """Return about how many bytes decoding takes at its peak; 0 for small JPEGs, and what cannot be decoded."""
    if isinstance(payload, Crop):
        payload = payload.picture
    if not isinstance(payload, bytes):
        return 0
    if payload[:2] == b"\xff\xd8":
        if len(payload) < _SMALL_JPEG:
            return 0
        if header := read_header(payload):
            return header.width * header.height * _BYTES_OF_JPEG
    silence_pillow()
    try:
        if is_tiff(payload):
            page = TiffPage(payload)
            return page.width * page.height * (page.samples * 8 + 8)
        with Image.open(io.BytesIO(payload), formats=readable_formats()) as image:
            return image.width * image.height * _BYTES
    except Exception:  # decoding gives the reason
        return 0
