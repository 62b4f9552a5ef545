"""Decoding of texts: strings, text files and e-mails."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from embedpipe.decoding.messages import message_text
from embedpipe.decoding.signatures import describe_binary
from embedpipe.errors import DecodeError
from embedpipe.sources.encodings import decode, has_mark
from embedpipe.sources.file_types import EmailBytes

#: Largest text in bytes, for strings in UTF-8.
TEXT_LIMIT = 1 << 26

#: White space and characters without width, such as zero-width spaces and the byte order mark.
_INVISIBLE = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]*"
)

#: Control characters except white space and escape. Texts do not have them, except in UTF-16 and UTF-32.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f]")

#: A payload is binary if more than one byte in so many is a control character, or if any byte is zero.
_CONTROL_SHARE = 100


class DecodedText(NamedTuple):
    """A text, and its encoding if it was detected."""

    text: str
    encoding: str | None = None


def decode_text(payload: Any) -> DecodedText:
    """Decode one text.

    Newlines and all other characters are kept for the tokenizer.

    Parameters
    ----------
    payload : str, bytes or EmailBytes
        A text; the bytes of a text file in UTF-8, in UTF-16 or UTF-32 with a byte order mark, or in a detected
        encoding; or an e-mail, of which subject and body are the text.

    Raises
    ------
    DecodeError
        The payload has another type, is binary, has more than `TEXT_LIMIT` bytes, has no known encoding, or is
        empty. White space and characters without width count as empty.
    MissingExtraError
        The encoding must be detected, and charset-normalizer is not installed.
    """
    if isinstance(payload, (bytearray, memoryview)):
        payload = bytes(payload)
    if not isinstance(payload, (str, bytes)):
        raise DecodeError(
            f"a text must be a string, the bytes of a text file or a pathlib.Path, got {type(payload).__name__}"
        )
    size = len(payload)
    if isinstance(payload, str) and size <= TEXT_LIMIT and not payload.isascii():
        size = len(encoded(payload))
    if size > TEXT_LIMIT:
        raise DecodeError(f"a text must have at most {TEXT_LIMIT} bytes, got {size}: split it")
    if isinstance(payload, str):
        decoded = DecodedText(str(payload))
    elif isinstance(payload, EmailBytes):
        decoded = DecodedText(*message_text(payload))
        encoded(decoded.text)  # the declared encoding of an e-mail may give lone surrogates
    else:
        decoded = DecodedText(*_decode_bytes(payload))
    if _INVISIBLE.fullmatch(decoded.text):
        raise DecodeError("the text is empty")
    return decoded


def encoded(text: str) -> bytes:
    """Return a string as UTF-8. Raises DecodeError with the position of a lone surrogate."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DecodeError(
            f"the text has a lone surrogate, U+{ord(text[error.start]):04X}, at position {error.start}, from wrong "
            "decoding or cutting: decode the text again, or replace the character"
        ) from error


def _decode_bytes(data: bytes) -> tuple[str, str | None]:
    if not has_mark(data):
        _refuse_binary(data)
    try:
        return decode(data)
    except UnicodeError as error:
        raise DecodeError(f"the text cannot be decoded: {error}; save it as UTF-8") from error


def _refuse_binary(data: bytes) -> None:
    if b"\0" not in data and (data.isascii() or len(_CONTROL.findall(data)) * _CONTROL_SHARE <= len(data)):
        return
    raise DecodeError(f"binary, not text: {describe_binary(data)}")
