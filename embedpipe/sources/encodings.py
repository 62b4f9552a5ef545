"""Decoding of bytes to text: UTF-8, byte order marks, and detected encodings, which are reported."""

from __future__ import annotations

import codecs
import io

from embedpipe._utils.importing import import_extra
from embedpipe.errors import MissingExtraError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, as its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: Encodings that are detected: those of files and e-mails before UTF-8. More candidates would make noise plausible.
_DETECTED = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp866", "cp874",
    "koi8_r", "iso8859_5", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip

#: Bytes of lines with non-ASCII characters that detection uses. ASCII lines carry no information.
_SAMPLE = 1 << 16

#: Bytes checked at a time, so that memory does not hold a large table twice.
_BLOCK = 1 << 20

#: Largest mess (0 to 1, of charset-normalizer) of a text. Finnish, with its double vowels, has 0.37; noise has 0.6.
_MOST_MESS = 0.5

#: Additional mess and missing coherence with which cp1252 is still preferred, as it is by far the most frequent
#: encoding if little distinguishes the candidates, as in "£100".
_CLOSE_MESS, _CLOSE_COHERENCE = 0.08, 0.03


def has_mark(data: bytes) -> bool:
    """Return whether bytes begin with a byte order mark of UTF-8, UTF-16 or UTF-32."""
    return any(data.startswith(mark) for mark, _ in _MARKS)


def to_utf8(data: bytes) -> tuple[bytes, str | None]:
    """Return ``data`` as UTF-8 without mark, and the encoding if it was detected. Raises as `decode` does."""
    if not has_mark(data) and _is_utf8(data):
        return data, None
    text, encoding = decode(data)
    return text.encode(), encoding


def decode(data: bytes) -> tuple[str, str | None]:
    """Return the text of ``data``, and the encoding if it was detected.

    Raises
    ------
    UnicodeError
        The bytes contradict their byte order mark, or no encoding fits.
    MissingExtraError
        The bytes are not UTF-8, and charset-normalizer is not installed.
    """
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    try:
        return data.decode(marked or "utf-8"), None
    except UnicodeDecodeError as error:
        if marked:
            raise
        invalid = error
    if _is_mostly_utf8(data):
        line = data.count(b"\n", 0, invalid.start) + 1
        raise UnicodeError(
            f"UTF-8 with invalid bytes, the first of which, {data[invalid.start]:#04x}, is on line {line}"
        )
    for encoding in _detect(data):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue  # the sample fits, the rest does not
    raise UnicodeError(f"neither UTF-8 (byte {invalid.start} is {data[invalid.start]:#04x}) nor another known encoding")


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), _BLOCK):
            decoder.decode(data[start : start + _BLOCK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _is_mostly_utf8(data: bytes) -> bool:
    """Return whether most non-ASCII lines are UTF-8, which is unlikely for another encoding."""
    good = bad = 0
    for line in io.BytesIO(_sample(data)):
        try:
            line.decode()
            good += 1
        except UnicodeDecodeError:
            bad += 1
    return good > bad


def _detect(data: bytes) -> list[str]:
    """Return the encodings that fit, the most likely first."""
    try:
        library = import_extra("charset_normalizer", "text")
    except MissingExtraError as error:
        raise MissingExtraError(f"not UTF-8, and its encoding cannot be detected: {error}") from error
    matches = list(
        library.from_bytes(
            _sample(data),
            steps=16,
            threshold=_MOST_MESS,
            cp_isolation=list(_DETECTED),
            preemptive_behaviour=False,
            enable_fallback=False,
        )
    )
    names = [match.encoding for match in matches]
    for match in matches:
        close = match.chaos <= matches[0].chaos + _CLOSE_MESS
        close = close and match.coherence >= matches[0].coherence - _CLOSE_COHERENCE
        if close and "cp1252" in match.could_be_from_charset:  # encodings with the same result are one match
            names.insert(0, "cp1252")
    return list(dict.fromkeys(names))


def _sample(data: bytes) -> bytes:
    lines, size = [], 0
    for line in io.BytesIO(data):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > _SAMPLE:
                break
    return b"".join(lines)
