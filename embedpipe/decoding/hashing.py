"""One hash for each content, whatever kind of payload it is."""

from __future__ import annotations

import hashlib
from typing import Any

from embedpipe.decoding.image import picture_hash
from embedpipe.decoding.text import encoded
from embedpipe.errors import DecodeError
from embedpipe.sources.file_types import EmailBytes

#: Goes before an e-mail, of which not all becomes text: the same bytes in a text file are another content.
_EMAIL = b"message/rfc822\0"


def payload_hash(payload: Any) -> str:
    """Return the SHA-256, in hex, of what decides the picture or the text.

    Parameters
    ----------
    payload : str, bytes, EmailBytes, PIL.Image.Image or ndarray
        Bytes are hashed as they are, strings as UTF-8, so that a text has the same hash from a file and from a
        table; of an image or array, the mode, size, pixels, palette, transparency and orientation.

    Raises
    ------
    DecodeError
        The payload is none of these, or its characters or pixels are invalid.
    """
    if isinstance(payload, str):
        return hashlib.sha256(encoded(payload)).hexdigest()
    if isinstance(payload, EmailBytes):
        return hashlib.sha256(_EMAIL + payload).hexdigest()
    if isinstance(payload, bytes | bytearray | memoryview):
        return hashlib.sha256(payload).hexdigest()
    if isinstance(payload, int | float):
        raise DecodeError(f"{payload!r} is a number, and no picture or text: give encoded bytes, pixels or a string")
    return picture_hash(payload)
