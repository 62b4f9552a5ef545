"""Content hashes of payloads."""

from __future__ import annotations

import hashlib
from typing import Any

from embedpipe.decoding.image import picture_hash
from embedpipe.decoding.text import encoded
from embedpipe.errors import DecodeError
from embedpipe.sources.boxes import Crop
from embedpipe.sources.file_types import EmailBytes

#: Prefix for e-mails. Only part of an e-mail becomes text, so the same bytes in a text file are another content.
_EMAIL = b"message/rfc822\0"


def payload_hash(payload: Any) -> str:
    """Return the SHA-256, in hex, of the content of an image or text.

    Parameters
    ----------
    payload : str, bytes, EmailBytes, Crop, PIL.Image.Image or ndarray
        Bytes are hashed unchanged and strings as UTF-8, so that a text has the same hash from a file and from a
        table. For an image or array, mode, size, pixels, palette, transparency and orientation are hashed.
        For a part of a picture, the picture and the box are.

    Raises
    ------
    DecodeError
        The payload has another type, or its characters or pixels are invalid.
    """
    if isinstance(payload, str):
        return hashlib.sha256(encoded(payload)).hexdigest()
    if isinstance(payload, Crop):
        content = payload.box.whole_fragment + payload_hash(payload.picture)
        return hashlib.sha256(content.encode()).hexdigest()
    if isinstance(payload, EmailBytes):
        return hashlib.sha256(_EMAIL + payload).hexdigest()
    if isinstance(payload, bytes | bytearray | memoryview):
        return hashlib.sha256(payload).hexdigest()
    if isinstance(payload, int | float):
        raise DecodeError(f"a payload must be encoded bytes, pixels or a string, got the number {payload!r}")
    return picture_hash(payload)
