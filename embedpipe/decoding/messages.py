"""Text of e-mails: subject and body. Other headers are left out, as they would leak labels."""

from __future__ import annotations

import codecs
import email.errors
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message

from embedpipe.decoding.html_pages import html_text
from embedpipe.errors import DecodeError, EmbedpipeError
from embedpipe.sources.encodings import decode, has_mark

#: Declared encodings that many e-mails violate -> the larger encodings that they use, as in browsers.
_ACTUAL = {
    "ascii": "utf-8",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}

#: Codecs of Python that no e-mail is written in.
_NOT_FOR_TEXT = ("unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined", "mbcs", "oem")

#: Declaration of an encoding in an HTML page.
_META = re.compile(rb"<meta[^>]{0,200}?charset=[\"' ]*([\w.:-]+)", re.IGNORECASE)

#: Longest subject in characters. Decoding takes quadratic time in the number of words.
_LONGEST_SUBJECT = 10_000

#: Longest value of a header in characters. The parser of parameters takes quadratic time.
_LONGEST_HEADER = 2_000

#: Largest product of the lines and the boundaries of a message: the parser compares each line with the boundaries of
#: all parts around it.
_MOST_COMPARISONS = 20_000_000

#: Bytes of an HTML page in which its encoding is looked for.
_META_BYTES = 1 << 16

#: A header with its continuation lines.
_HEADER = re.compile(r"^[!-9;-~]+:.*(?:\r?\n[ \t].*)*(?:\r?\n|\Z)", re.MULTILINE)

#: The beginning of a mailbox file up to its second message.
_MAILBOX = re.compile(rb"From .*?\n\r?\nFrom [^\n]*\r?\n[!-9;-~]+:", re.DOTALL)


def message_text(data: bytes) -> tuple[str, str | None]:
    """Return subject, blank line and body of an RFC 822 message, and the encodings that were detected.

    Of several versions of the body, the plain text is taken, else the HTML without tags. Attachments are left out;
    forwarded messages are included with their subject. Malformed messages are read as far as possible. A wrong or
    unknown encoding is detected.

    Raises
    ------
    DecodeError
        The message cannot be parsed.
    MissingExtraError
        An encoding must be detected, and charset-normalizer is not installed.
    """
    if _MAILBOX.match(data):
        raise DecodeError(
            "an e-mail file must hold one e-mail, got a mailbox of several: split it (Python module mailbox)"
        )
    lines, boundaries = data.count(b"\n"), len(re.findall(rb"boundary", data, re.IGNORECASE))
    if lines * boundaries > _MOST_COMPARISONS:
        raise DecodeError(f"an e-mail of {lines} lines and {boundaries} boundaries takes too long to read: split it")
    detected: dict[str, None] = {}
    try:
        # The newer policies of the email module raise on malformed headers.
        message = email.message_from_bytes(_from_its_headers(data), _class=_Message)
        text = "\n\n".join(piece for piece in _pieces(message, detected) if piece.strip())
    except EmbedpipeError:
        raise
    except Exception as error:  # on invalid bytes the parsers raise many types, also RecursionError
        raise DecodeError(f"the e-mail cannot be parsed: {error or type(error).__name__}") from error
    return text, ", ".join(detected) or None


class _Message(Message):
    """A message whose headers are cut, except the subject."""

    def set_raw(self, name: str, value: str) -> None:
        """Add a header as it was read."""
        super().set_raw(name, value if name.lower() == "subject" else value[:_LONGEST_HEADER])


def _from_its_headers(data: bytes) -> bytes:
    """Return a message without byte order mark, blank lines and quoting before its first header."""
    if has_mark(data):
        data = decode(data)[0].encode()
    data = data.lstrip()
    return data[1:] if data.startswith(b">From ") else data


def _pieces(message: Message, detected: dict[str, None]) -> Iterator[str]:
    """Yield the subject and the texts of a message."""
    yield _subject(message, detected)
    yield from _body(message, detected, below_root=False)


def _body(part: Message, detected: dict[str, None], below_root: bool = True) -> Iterator[str]:
    if part.get_content_disposition() == "attachment":
        return
    payload = part.get_payload()
    if isinstance(payload, list):
        subparts = [each for each in payload if isinstance(each, Message)]
        if part.get_content_maintype() == "message":
            for message in subparts:
                yield from _pieces(message, detected)
        elif part.get_content_subtype() == "alternative":
            yield from _best([list(_body(each, detected)) for each in subparts], subparts)
        else:
            for each in subparts:
                yield from _body(each, detected)
    elif _is_text(part) and (not below_root or part.get_filename() is None):  # the whole message may be a named text
        yield _text(part, detected)


def _is_text(part: Message) -> bool:
    """Return whether a part without subparts is text. A multipart without subparts has lost its boundaries."""
    return part.get_content_maintype() in ("text", "multipart") and part.get_content_type() != "text/rfc822-headers"


def _best(texts: list[list[str]], parts: list[Message]) -> list[str]:
    """Return the first version in plain text, else the first that is not empty."""
    versions = [
        (part.get_content_type() != "text/plain", text)
        for part, text in zip(parts, texts, strict=True)
        if any(piece.strip() for piece in text)
    ]
    return min(versions, key=lambda version: version[0])[1] if versions else []


def _text(part: Message, detected: dict[str, None]) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    html = part.get_content_subtype() == "html"
    meta = _META.search(data, 0, _META_BYTES) if html else None
    declared = part.get_content_charset() or (meta[1].decode() if meta else None)
    text = _characters(data, declared, detected)
    if html:
        return html_text(text)
    truncated = any(isinstance(defect, email.errors.MissingHeaderBodySeparatorDefect) for defect in part.defects)
    return _without_headers(text) if truncated else text


def _without_headers(text: str) -> str:
    """Drop headers after a malformed header line, which the parser takes for the body."""
    head, gap, body = re.split(r"(\r?\n\r?\n|\Z)", text, maxsplit=1)
    return _HEADER.sub("", head).rstrip() + gap + body


def _subject(message: Message, detected: dict[str, None]) -> str:
    raw = next((value for name, value in message.raw_items() if name.lower() == "subject"), "")
    line = re.sub(r"\r?\n(?=[ \t])", "", str(raw)).strip()[:_LONGEST_SUBJECT]
    line = _characters(line.encode("utf-8", "surrogateescape"), None, detected)
    if "=?" not in line:
        return line
    try:
        words = decode_header(line)
    except email.errors.HeaderParseError:  # invalid base64
        return line
    pieces = []
    for word, charset in words:
        if isinstance(word, str):
            pieces.append(word)
        elif charset is None:  # how decode_header returns text that is not encoded
            pieces.append(word.decode("raw-unicode-escape"))
        else:
            pieces.append(_characters(word, charset, detected))
    return "".join(pieces)


def _characters(data: bytes, declared: str | None, detected: dict[str, None]) -> str:
    """Decode as declared, else in a detected encoding, which is added to ``detected``."""
    if declared:
        try:
            name = codecs.lookup(declared).name
            if name not in _NOT_FOR_TEXT:
                return data.decode(_ACTUAL.get(name, name))
        except (LookupError, ValueError):
            pass
    try:
        text, encoding = decode(data)
    except UnicodeError as error:
        raise DecodeError(f"the e-mail cannot be decoded: {error}") from error
    if encoding or (declared and not data.isascii()):
        detected[encoding or "utf-8"] = None
    return text
