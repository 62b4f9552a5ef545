"""Any text a person may have, as a string; anything else is a DecodeError that says why."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from embedpipe.decoding.messages import message_text
from embedpipe.decoding.signatures import describe_binary
from embedpipe.errors import DecodeError
from embedpipe.sources.encodings import decode, has_mark
from embedpipe.sources.file_types import EmailBytes

#: Texts of more bytes, in UTF-8 where they are strings, are refused.
TEXT_LIMIT = 1 << 26

#: What is seen of a text that has none: format characters such as zero-width spaces and the byte order mark.
_INVISIBLE = re.compile(
    r"[\s\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]*"
)

#: Bytes that no text has in any encoding but UTF-16 and UTF-32: control characters, but for white space and escape.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x19\x1c-\x1f\x7f]")

#: More of them than one byte in so many make it binary, and so does one zero byte.
_CONTROL_SHARE = 100


class DecodedText(NamedTuple):
    """A text, and its encoding if that had to be detected."""

    text: str
    encoding: str | None = None


def decode_text(payload: Any) -> DecodedText:
    """Decode one text.

    Newlines and all other characters stay as they are; what to make of them is for the tokenizer.

    Parameters
    ----------
    payload : str, bytes or EmailBytes
        A text as it is; a text file, in UTF-8, in UTF-16 or UTF-32 with a byte order mark, or in
        an encoding that is detected; or an e-mail, of which the subject and body are the text.

    Raises
    ------
    DecodeError
        The payload is none of these, binary, of more than `TEXT_LIMIT` bytes, in no known encoding, or empty:
        nothing but white space and characters without width counts as empty.
    MissingExtraError
        The encoding must be detected, or an e-mail's HTML stripped, and what does that is not installed.
    """
    if isinstance(payload, (bytearray, memoryview)):
        payload = bytes(payload)
    if not isinstance(payload, (str, bytes)):
        raise DecodeError(f"{type(payload).__name__} is no text; give a string, a text file's bytes or a pathlib.Path")
    size = len(payload)
    if isinstance(payload, str) and size <= TEXT_LIMIT and not payload.isascii():
        size = len(encoded(payload))
    if size > TEXT_LIMIT:
        raise DecodeError(f"too large for one text: {size} bytes, more than {TEXT_LIMIT}; split it")
    if isinstance(payload, str):
        decoded = DecodedText(str(payload))
    elif isinstance(payload, EmailBytes):
        decoded = DecodedText(*message_text(payload))
        encoded(decoded.text)  # a mail may declare an encoding that knows half characters
    else:
        decoded = DecodedText(*_decode_bytes(payload))
    if _INVISIBLE.fullmatch(decoded.text):
        raise DecodeError("the text is empty")
    return decoded


def encoded(text: str) -> bytes:
    """Return a string as UTF-8. Raises DecodeError saying where half a character (a lone surrogate) is."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DecodeError(
            f"the text has half a character, U+{ord(text[error.start]):04X}, at position {error.start}: a lone "
            "surrogate, as wrong decoding or cutting leaves them; decode the text again, or replace it"
        ) from error


def _decode_bytes(data: bytes) -> tuple[str, str | None]:
    if not has_mark(data):
        _refuse_binary(data)
    try:
        return decode(data)
    except UnicodeError as error:
        raise DecodeError(f"the text's characters cannot be decoded: {error}; save it as UTF-8") from error


def _refuse_binary(data: bytes) -> None:
    if b"\0" not in data and (data.isascii() or len(_CONTROL.findall(data)) * _CONTROL_SHARE <= len(data)):
        return
    raise DecodeError(f"binary, not text: {describe_binary(data)}")
