"""`message_text`: subject and body of e-mails, and no other header."""

from __future__ import annotations

import contextlib
import random
import time
from email.headerregistry import Address
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedpipe.decoding import DecodedText, decode_text
from embedpipe.decoding.html_pages import html_text
from embedpipe.errors import DecodeError
from embedpipe.sources import EmailBytes

SECRETS = {
    "From": "sender@leak.example",
    "Reply-To": "reply@leak.example",
    "Date": "Mon, 01 Jan 2001 00:00:00 +0000",
    "Received": "from relay-leak by mx-leak; Mon, 01 Jan 2001 00:00:00 +0000",
    "X-Spam-Status": "Yes, score=99.9",
    "List-Id": "<leak-list.example>",
    "Message-ID": "<leak@leak.example>",
}


def mail(subject: str | None = "The subject", body: str | None = "The body.\n") -> EmailMessage:
    message = EmailMessage()
    for name, value in SECRETS.items():
        message[name] = value
    message["To"] = Address("Leaky Receiver", "receiver", "leak.example")
    if subject is not None:
        message["Subject"] = subject
    if body is not None:
        message.set_content(body)
    return message


def text_of(message: EmailMessage | bytes) -> str:
    decoded = decode_text(EmailBytes(message if isinstance(message, bytes) else message.as_bytes()))
    lowered = decoded.text.lower()
    for value in ("leak", "2001", "score", "receiver", "content-type", "mime-version"):
        assert value not in lowered
    return decoded.text


def test_text_is_subject_blank_line_and_body() -> None:
    assert text_of(mail()) == "The subject\n\nThe body.\n"
    assert text_of(mail(subject=None)) == "The body.\n"
    assert text_of(mail(body=None)) == "The subject"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "8bit"])
def test_transfer_encodings_are_decoded(encoding: str) -> None:
    message = mail("Grüße 🎉 aus 日本", None)
    message.set_content("Schöne Grüße — 日本\n", cte=encoding)
    assert text_of(message) == "Grüße 🎉 aus 日本\n\nSchöne Grüße — 日本\n"


def test_line_ends_are_normalised() -> None:
    data = mail("A long subject that goes over more than one line, since it has so many words in it").as_bytes()
    crlf = data.replace(b"\n", b"\r\n")
    assert text_of(crlf).splitlines() == text_of(data).splitlines()
    assert "line, since" in text_of(crlf)


def test_html_is_read_without_tags() -> None:
    html = """<?xml version="1.0"?><html><head><title>no title</title><style>p {color: red}</style></head>
    <body><!-- no comment --><h1>Big&nbsp;news</h1><p>One <b>bo</b>ld
    line.</p><script>no()</script><noscript>none</noscript>
    <table><tr><td>left</td><td>right</td></tr></table>a<br>b<?xml:namespace prefix = o /></body></html>"""
    message = mail(body=None)
    message.set_content(html, subtype="html")
    assert text_of(message) == "The subject\n\nBig news\nOne bold line.\nleft right\na\nb"


@pytest.mark.parametrize("plain_first", [True, False])
def test_plain_text_is_preferred(plain_first: bool) -> None:
    message = mail(body=None)
    message.make_alternative()
    for subtype in ("plain", "html") if plain_first else ("html", "plain"):
        message.add_alternative(f"the {subtype} version\n", subtype=subtype)
    assert text_of(message) == "The subject\n\nthe plain version\n"


def test_empty_plain_version_is_skipped() -> None:
    message = mail(body=" \n")
    message.add_alternative("<p>the HTML version</p>", subtype="html")
    assert text_of(message) == "The subject\n\nthe HTML version"


def test_attachments_are_left_out() -> None:
    message = mail()
    message.add_alternative("<p>no HTML</p>", subtype="html")
    message.add_attachment(b"\xff\xd8leak", maintype="image", subtype="jpeg", filename="leak.jpg")
    message.add_attachment("leak in a text", filename="leak.txt")
    message.add_attachment(mail("leak"))
    assert text_of(message) == "The subject\n\nThe body.\n"


def test_nested_parts_and_forwarded_messages_are_read() -> None:
    outer = mail("Outer", None)
    outer.make_mixed()
    outer.attach(mail(None, "first part\n"))
    forwarded = mail("Inner", "inner body\n")
    part = EmailMessage()
    part.set_content(forwarded)
    outer.attach(part)
    assert text_of(outer) == "Outer\n\nfirst part\n\n\nInner\n\ninner body\n"


def by_hand(headers: bytes, body: bytes) -> EmailBytes:
    return EmailBytes(headers + b"\n\n" + body)


RUSSIAN = "Привет, как дела? Это сообщение написано давно. Мы идем домой вечером."


@pytest.mark.parametrize(
    "charset", [b"", b"; charset=us-ascii", b"; charset=no-such-thing", b"; charset=utf-8", b"; charset=rot13"]
)
def test_wrong_and_unknown_encodings_are_detected(charset: bytes) -> None:
    data = by_hand(b"Subject: x\nContent-Type: text/plain" + charset, RUSSIAN.encode("koi8_r"))
    assert decode_text(data) == DecodedText(f"x\n\n{RUSSIAN}", "koi8_r")


def test_correct_encodings_are_not_detected() -> None:
    headers = b"Content-Type: text/plain; charset="
    assert decode_text(by_hand(headers + b"koi8-r", RUSSIAN.encode("koi8_r"))) == DecodedText(RUSSIAN)
    assert decode_text(by_hand(headers + b"iso-8859-1", "“€”".encode("cp1252"))) == DecodedText("“€”")
    assert decode_text(by_hand(headers + b"us-ascii", "é".encode())) == DecodedText("é")
    assert decode_text(by_hand(headers + b"no-such-thing", "é".encode())) == DecodedText("é", "utf-8")


def test_8_bit_headers_are_decoded() -> None:
    assert decode_text(by_hand("Subject: Grüße".encode(), b"x")) == DecodedText("Grüße\n\nx")
    assert decode_text(by_hand(b"Subject: " + RUSSIAN.encode("koi8_r"), b"x")) == DecodedText(
        f"{RUSSIAN}\n\nx", "koi8_r"
    )
    assert decode_text(by_hand("Subject: é =?utf-8?q?=C3=BC?=".encode(), b"x")).text == "é ü\n\nx"


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (b"=?utf-8?b?R3LDvMOfZQ==?=", "Grüße"),
        (b"=?iso-8859-1?q?Gr=FC=DFe?= =?iso-8859-1?q?_aus?=", "Grüße aus"),
        (b"=?no-such?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"=?utf-8?b?R3LDvMOfZQ==?= and\n more", "Grüße and more"),
        (b"=?utf-8?b?!!!?=", None),
        (b"=?utf-8?q?broken", "=?utf-8?q?broken"),
        (b"a =? b", "a =? b"),
    ],
)
def test_subjects_are_decoded(subject: bytes, expected: str | None) -> None:
    text = decode_text(by_hand(b"Subject: " + subject, b"body")).text
    assert text.endswith("body") if expected is None else text == f"{expected}\n\nbody"


def test_malformed_messages_are_read_as_far_as_possible() -> None:
    base64 = b"Content-Transfer-Encoding: base64"
    assert decode_text(by_hand(base64, b"SGVsbG8gdGhlcmU=!!")).text == "Hello there"
    assert decode_text(by_hand(base64, b"SGVsbG8gdGhlcm")).text.startswith("Hello ther")
    quoted = b"Content-Transfer-Encoding: quoted-printable"
    assert decode_text(by_hand(quoted, b"Hello =XY there=")).text.startswith("Hello =XY there")
    assert decode_text(EmailBytes(b"no headers at all\nbut text")).text == "no headers at all\nbut text"
    truncated = by_hand(b"Subject: s\nContent-Type: multipart/mixed; boundary=b", b"--b\n\npart one")
    assert decode_text(truncated).text == "s\n\npart one"
    unbound = by_hand(b"Subject: s\nContent-Type: multipart/mixed", b"all of it")
    assert "all of it" in decode_text(unbound).text
    assert decode_text(EmailBytes(b"From someone Mon Jan 1\nSubject: s\n\nbody")).text == "s\n\nbody"


def test_headers_after_a_malformed_one_do_not_leak() -> None:
    data = b"Subject: s\nthis is no header\nX-Spam-Status: leak\n and leak\nList-Id: leak\n\nNote: the body\n"
    assert text_of(data) == "s\n\nthis is no header\n\nNote: the body\n"


def test_empty_messages_are_refused() -> None:
    picture = mail(None, None)
    picture.add_attachment(b"\xff\xd8", maintype="image", subtype="jpeg")
    for data in (b"", b"\n\n", mail(None, None).as_bytes(), picture.as_bytes()):
        with pytest.raises(DecodeError, match="the text is empty"):
            decode_text(EmailBytes(data))


def test_deeply_nested_messages_are_refused() -> None:
    with pytest.raises(DecodeError, match="cannot be parsed"):
        decode_text(EmailBytes(b"Content-Type: message/rfc822\n\n" * 5000 + b"Subject: deep\n\nbody"))


def rich() -> bytes:
    message = mail("Grüße 🎉", "Schöne Grüße\n")
    message.add_alternative("<p>Schöne <b>Grüße</b></p>", subtype="html")
    message.add_attachment(b"\xff\xd8", maintype="image", subtype="jpeg", filename="é.jpg")
    message.add_attachment(mail("inner"))
    return message.as_bytes()


RICH = rich()


def outcome(payload: bytes) -> str:
    """Return the text, or the message of a DecodeError. Other errors are raised."""
    try:
        return decode_text(payload).text
    except DecodeError as error:
        return str(error)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_mutated_messages_are_decoded_or_refused(seed: int, changes: int) -> None:
    chance = random.Random(seed)
    data = bytearray(RICH)
    for _ in range(changes):
        at = chance.randrange(len(data))
        action = chance.randrange(3)
        if action == 0:
            data[at] = chance.randrange(256)
        elif action == 1:
            del data[at : at + chance.randrange(8)]
        else:
            data[at:at] = bytes(chance.choices(b'\n\r\0:;="<>?-\xff ', k=3))
    assert outcome(EmailBytes(data)).encode()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_as_a_message_are_decoded_or_refused(data: bytes) -> None:
    assert outcome(EmailBytes(data)).encode()


@pytest.mark.parametrize("first", ["From MAILER-DAEMON Mon Jan  1 00:00:00 2001\n", ""])
def test_mailbox_is_refused(first: str) -> None:
    first_mail = "Subject: one\nX-Label: spam\n\nFrom here on it is quiet.\n"
    box = f"{first}{first_mail}\nFrom MAILER-DAEMON Mon Jan  1 00:00:00 2001\nSubject: two\n\nThe second.\n"
    if first:
        with pytest.raises(DecodeError, match="a mailbox of several"):
            decode_text(EmailBytes(box.encode()))
    assert "quiet" in decode_text(EmailBytes((first + first_mail).encode())).text


@pytest.mark.parametrize(
    "before",
    ["\n", "\r\n\n ", "\ufeff", ">From x@y.example Mon Jan  1\n", "From x@y.example Mon Jan  1\n", "a stray line\n"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_no_header_leaks_after_leading_lines(before: str, encoding: str) -> None:
    data = f"{before}X-Spam-Flag: YES-leak\nList-Id: <leak>\nSubject: hi\n\nthe body\n"
    text = decode_text(EmailBytes(data.encode(encoding))).text
    assert "leak" not in text
    assert "the body" in text


def test_bounced_headers_do_not_leak() -> None:
    data = (
        b"Subject: bounced\nContent-Type: multipart/report; boundary=b\n\n--b\nContent-Type: text/plain\n\nIt failed.\n"
        b"--b\nContent-Type: text/rfc822-headers\n\nX-Spam-Flag: YES\n\n--b--\n"
    )
    assert decode_text(EmailBytes(data)).text == "bounced\n\nIt failed."


@pytest.mark.parametrize(
    "header",
    ['Content-Type: text/plain; name="mail.txt"', "Content-Disposition: inline; filename=mail.txt"],
)
def test_email_of_one_named_text_is_read(header: str) -> None:
    assert decode_text(EmailBytes(f"Subject: s\n{header}\n\nWIN MONEY\n".encode())).text.endswith("WIN MONEY\n")


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<html><head><meta charset=utf-8><body>WIN MONEY</body></html>", "WIN MONEY"),
        ("<title>never closed<body>WIN", "WIN"),
        ("<script>hidden</script>a<style>p {}</style><br>b<!-- c -->", "a\nb"),
        ("a &amp; b&nbsp;c<td>d</td><td>e</td>", "a & b c d e"),
        ("<div>" * 30_000 + "deep", "deep"),
        ("x<br>" * 50_000, "\n".join("x" * 50_000)),
    ],
    ids=["open head", "open title", "unseen", "entities", "deep", "long"],
)
def test_html_text_is_the_visible_text(page: str, expected: str) -> None:
    data = b"Subject: s\nContent-Type: text/html; charset=utf-8\n\n" + page.encode()
    assert decode_text(EmailBytes(data)).text == f"s\n\n{expected}"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("one<!-- a > b --!>two<!--> three <!--->four", "onetwo three four"),
        ("<a title='x > y' href=\"a'b>c\">link</a>", "link"),
        ("a < b and <3 but </> and <?php x ?> <!doctype html>", "a < b and <3 but and"),
        ("<p>first<p>second<script>if (a</b) x = '<p>'</script>third", "first\nsecondthird"),
        ("<STYLE>p > a</STYLE ><Title>no</title >yes", "yes"),
        (
            "x &amp; y &#65; &notit; &#99999999999999999; &#x110000;",
            "x & y A \N{NOT SIGN}it; \N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}",
        ),
        ("text <a href='never closed", "text"),
        ("<p/>a<br/>b<div class=x/y>c", "a\nb\nc"),
        ("<a href=it's>d</a><a b = 'c>d' e>f", "df"),
    ],
)
def test_markup_ends_where_browsers_end_it(page: str, expected: str) -> None:
    assert html_text(page) == expected


HOSTILE = [
    "<a ",
    "<!--",
    "<meta ",
    "<?",
    "<!",
    "</",
    "</a ",
    "<a b='",
    "<a b=\"'",
    "<script>",
    "<style></s",
    "&#9",
    "&",
    "<a =",
    "-->",
    "<b>",
    "<p",
    "<![CDATA[",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("before", ["", '<a b="', "<title>"])
def test_time_of_html_is_linear(piece: str, before: str) -> None:
    data = (before + piece * (400_000 // len(piece))).encode()
    start = time.process_time()
    with contextlib.suppress(DecodeError):
        decode_text(EmailBytes(b"Subject: s\nContent-Type: text/html\n\n" + data))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Type: text/plain" + b";" * 1_000_000,
        b"Content-Type: text/plain" + b'; a="' * 200_000,
        b"Content-Type: multipart/mixed; boundary=b\n" * 20_000,
        b"Subject: " + b"=?utf-8?q?a?= " * 100_000,
        b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i) for i in range(80))
        + b"\n" * 1_000_000,
    ],
    ids=["semicolons", "quotes", "repeated", "words", "nested"],
)
def test_time_of_headers_is_bounded(headers: bytes) -> None:
    start = time.process_time()
    with contextlib.suppress(DecodeError):
        decode_text(EmailBytes(headers + b"\n\nbody"))
    assert time.process_time() - start < 10


def test_encoding_declared_in_html_is_used() -> None:
    page = '<html><head><meta charset="koi8-r"></head><body>Привет, мир</body></html>'.encode("koi8-r")
    assert "Привет, мир" in decode_text(EmailBytes(b"Subject: s\nContent-Type: text/html\n\n" + page)).text


def test_codecs_that_are_not_text_encodings_are_ignored() -> None:
    data = b"Subject: s\nContent-Type: text/plain; charset=unicode_escape\n\nC:\\new\\x41\n"
    assert decode_text(EmailBytes(data)).text == "s\n\nC:\\new\\x41\n"


def test_long_subject_is_cut() -> None:
    data = b"Subject: " + b"=?utf-8?q?win?= " * 50_000 + b"\n\nbody\n"
    assert len(decode_text(EmailBytes(data)).text) < 20_000
