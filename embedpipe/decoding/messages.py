"""E-mail messages as text: the subject and the body, and no other header, as those would give labels away."""

from __future__ import annotations

import codecs
import email
import email.errors
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message

from embedpipe.decoding.html_pages import html_text
from embedpipe.errors import DecodeError, EmbedpipeError
from embedpipe.sources.encodings import decode, has_mark

#: Encodings that many mails declare and few keep to, and the larger ones that they mean (as browsers have it).
_MEANT = {
    "ascii": "utf-8",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}

#: Names that Python decodes by, and no mail is written in.
_NOT_FOR_TEXT = ("unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined", "mbcs", "oem")

#: The encoding that a page declares itself.
_META = re.compile(rb"<meta[^>]{0,200}?charset=[\"' ]*([\w.:-]+)", re.IGNORECASE)

#: Subjects are cut to so many characters before they are decoded, which takes time by the square of their words.
_LONGEST_SUBJECT = 10_000

#: A header and the lines that it goes on over.
_HEADER = re.compile(r"^[!-9;-~]+:.*(?:\r?\n[ \t].*)*(?:\r?\n|\Z)", re.MULTILINE)

#: The second message of a mailbox file begins so.
_MAILBOX = re.compile(rb"From .*?\n\r?\nFrom [^\n]*\r?\n[!-9;-~]+:", re.DOTALL)


def message_text(data: bytes) -> tuple[str, str | None]:
    """Return the subject, a blank line and the body of an RFC 822 message, and the encodings that had to be detected.

    Of several versions of the body the plain one is taken, else the HTML one without its tags; attachments
    are left out, and forwarded messages are in it with their subject. What breaks the rules of
    mail is read as far as it can be; a wrong or unknown encoding is detected.

    Raises
    ------
    DecodeError
        No text can be made of the message.
    MissingExtraError
        The body is HTML, or an encoding must be detected, and what does that is not installed.
    """
    if _MAILBOX.match(data):
        raise DecodeError(
            "a mailbox of several e-mails, not one: split it into .eml files (Python's mailbox module does)"
        )
    detected: dict[str, None] = {}
    try:
        # Not the newer policies: their parser of headers raises on broken ones.
        message = email.message_from_bytes(_from_its_headers(data))
        text = "\n\n".join(piece for piece in _pieces(message, detected) if piece.strip())
    except EmbedpipeError:
        raise
    except Exception as error:  # on hostile bytes the parsers raise nearly anything, RecursionError included
        raise DecodeError(f"the e-mail cannot be parsed: {error or type(error).__name__}") from error
    return text, ", ".join(detected) or None


def _from_its_headers(data: bytes) -> bytes:
    """Return a message without a byte order mark, blank lines and quoting before its first header."""
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
        below = [one for one in payload if isinstance(one, Message)]
        if part.get_content_maintype() == "message":
            for message in below:
                yield from _pieces(message, detected)
        elif part.get_content_subtype() == "alternative":
            yield from _best([list(_body(one, detected)) for one in below], below)
        else:
            for one in below:
                yield from _body(one, detected)
    elif _is_said(part) and (not below_root or part.get_filename() is None):  # a message may be one named text
        yield _text(part, detected)


def _is_said(part: Message) -> bool:
    """Say whether a part that holds no others is text; a multipart that is one has lost its boundaries."""
    return part.get_content_maintype() in ("text", "multipart") and part.get_content_type() != "text/rfc822-headers"


def _best(texts: list[list[str]], parts: list[Message]) -> list[str]:
    """Return the first version that is plain text, else the first that says anything."""
    said = [
        (part.get_content_type() != "text/plain", text)
        for part, text in zip(parts, texts, strict=True)
        if any(piece.strip() for piece in text)
    ]
    return min(said, key=lambda version: version[0])[1] if said else []


def _text(part: Message, detected: dict[str, None]) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    html = part.get_content_subtype() == "html"
    meta = _META.search(data) if html else None
    declared = part.get_content_charset() or (meta[1].decode() if meta else None)
    text = _characters(data, declared, detected)
    if html:
        return html_text(text)
    torn = any(isinstance(defect, email.errors.MissingHeaderBodySeparatorDefect) for defect in part.defects)
    return _without_headers(text) if torn else text


def _without_headers(text: str) -> str:
    """Drop the headers that come after a line which is none: the parser takes them for the body."""
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
    except email.errors.HeaderParseError:  # base64 that is none
        return line
    pieces = []
    for word, charset in words:
        if isinstance(word, str):
            pieces.append(word)
        elif charset is None:  # the way in which decode_header keeps what is not encoded
            pieces.append(word.decode("raw-unicode-escape"))
        else:
            pieces.append(_characters(word, charset, detected))
    return "".join(pieces)


def _characters(data: bytes, declared: str | None, detected: dict[str, None]) -> str:
    """Decode as declared; where that is wrong or missing, in the encoding that is detected, which is noted."""
    if declared:
        try:
            name = codecs.lookup(declared).name
            if name not in _NOT_FOR_TEXT:
                return data.decode(_MEANT.get(name, name))
        except (LookupError, ValueError):
            pass
    try:
        text, encoding = decode(data)
    except UnicodeError as error:
        raise DecodeError(f"the e-mail's characters cannot be decoded: {error}") from error
    if encoding or (declared and not data.isascii()):
        detected[encoding or "utf-8"] = None
    return text
