"""`decode_text` and `payload_hash`: encodings, binary payloads, and hashes."""

from __future__ import annotations

import hashlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedpipe.decoding import DecodedText, decode_text, payload_hash
from embedpipe.decoding.text import TEXT_LIMIT
from embedpipe.errors import DecodeError
from embedpipe.sources import EmailBytes

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
KEPT = ["plain", " a\r\nb\rc\n\n", "e\u0301", "שלום עולם", f"{FAMILY} 🎉", "a\0b", "\ufeffmarked", "\ufdd0\U0010ffff"]


@pytest.mark.parametrize("text", KEPT, ids=ascii)
def test_strings_are_unchanged(text: str) -> None:
    assert decode_text(text) == DecodedText(text, None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", ["a\r\nb", "Grüße, 世界 🎉"])
def test_unicode_encodings_need_no_detection(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == DecodedText(text, None)


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\x00\x00\xfe\xff"])
def test_big_endian_marks_are_read(mark: bytes) -> None:
    encoding = "utf-16-be" if len(mark) == 2 else "utf-32-be"
    assert decode_text(mark + "né".encode(encoding)).text == "né"


LANGUAGES = {
    "english": ("cp1252", "It costs “nothing” — only £100 a week, or 90 € in the café at the end of the street."),
    "pound": ("cp1252", "Win £1000 now"),
    "french": ("cp1252", "Le café était très agréable, à côté de l'église. Il faisait déjà nuit à l'arrivée."),
    "finnish": ("cp1252", "Hyvää päivää, mitä kuuluu? Tänään sää on kylmä ja yöllä sataa lunta."),
    "czech": ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy. Dnes večer půjdeme do kina s přáteli."),
    "german": ("cp1252", "Das Mädchen aß Äpfel — “schön”. Die Straße war für Fußgänger gesperrt."),
    "polish": ("cp1250", "Zażółć gęślą jaźń. Wszystkie dzieci śpią, a ja piszę książkę o żółwiach i łąkach."),
    "turkish": (
        "cp1254",
        "Bugün hava çok güzel, çocuklar bahçede oynuyor. Şimdi İstanbul'da kalmak güzel, işe gidiyorum.",
    ),
    "russian": ("koi8_r", "Привет, как дела? Это сообщение написано давно. Мы идем домой вечером."),
    "russian on Windows": ("cp1251", "Привет, как дела? Это сообщение написано давно. Мы идем домой вечером."),
    "greek": ("cp1253", "Καλημέρα, πώς είστε σήμερα; Σήμερα κάνει πολύ καλό καιρό στην Αθήνα."),
    "hebrew": ("cp1255", "שלום, מה שלומך היום? מזג האוויר יפה מאוד בתל אביב"),
    "japanese": ("cp932", "これは日本語のテキストです。文字コードの検出を試しています。"),
    "japanese on Unix": ("euc_jp", "これは日本語のテキストです。文字コードの検出を試しています。"),
    "chinese": ("gb18030", "这是一段中文文本。用来测试编码检测是否正确工作。我们希望它能被识别出来。"),
    "korean": ("cp949", "안녕하세요. 오늘 날씨가 정말 좋네요. 우리는 저녁에 영화를 볼 것입니다."),
}


@pytest.mark.parametrize(("encoding", "text"), LANGUAGES.values(), ids=LANGUAGES)
def test_other_encodings_are_detected_and_reported(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)) == DecodedText(text, encoding)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a"), "b")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg(), "it looks like a JPEG image"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\x00\x01", "a PDF document$"),
        (zipped(), "a zip archive"),
        (bytes(20), "20 zero bytes"),
        (b"half a te\0xt", "byte 9 of 12 is zero"),
        ("no mark".encode("utf-16-le"), "byte 1 of 14 is zero; save UTF-16 text as UTF-8"),
        (bytes([200, 1, 2, 3] * 10), "40 bytes of an unknown type"),
    ],
)
def test_binary_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=f"binary, not text: .*{reason}"):
        decode_text(data)


NOISE = np.random.default_rng(0).integers(128, 256, 300).astype(np.uint8).tobytes()


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xef\xbb\xbf\xff", NOISE], ids=["UTF-16", "UTF-8", "noise"])
def test_undecodable_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"cannot be decoded.*save it as UTF-8"):
        decode_text(data)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " \t\r\n",
        "\u3000\u00a0\u2028",
        "\u200b\ufeff \u2060",
        b"",
        b" \n",
        b"\xef\xbb\xbf",
        EmailBytes(b"From: x\n\n "),
    ],
    ids=ascii,
)
def test_empty_texts_are_refused(payload: str | bytes) -> None:
    with pytest.raises(DecodeError, match="the text is empty"):
        decode_text(payload)


@pytest.mark.parametrize("payload", ["x" * (TEXT_LIMIT + 1), "é" * (TEXT_LIMIT // 2 + 1), b"x" * (TEXT_LIMIT + 1)])
def test_too_large_texts_are_refused(payload: str | bytes) -> None:
    with pytest.raises(DecodeError, match=f"a text must have at most {TEXT_LIMIT} bytes"):
        decode_text(payload)


def test_text_at_the_limit_is_decoded() -> None:
    assert len(decode_text(b"x" * TEXT_LIMIT).text) == TEXT_LIMIT


@pytest.mark.parametrize("payload", [None, 7, 1.5, ["a"], np.zeros(3)], ids=lambda value: type(value).__name__)
def test_other_payloads_are_refused(payload: object) -> None:
    with pytest.raises(DecodeError, match=f"a text must be a string, .* got {type(payload).__name__}"):
        decode_text(payload)


def test_lone_surrogate_is_refused() -> None:
    for work in (decode_text, payload_hash):
        with pytest.raises(DecodeError, match=r"U\+D83D, at position 2"):
            work("ab\ud83d")


def test_subclasses_of_strings_and_bytes_are_decoded() -> None:
    assert type(decode_text(np.str_("a")).text) is str
    assert decode_text(bytearray(b"a")) == decode_text(memoryview(b"a")) == DecodedText("a")


def test_payload_hash_depends_on_content() -> None:
    assert payload_hash("é") == payload_hash("é".encode()) == hashlib.sha256("é".encode()).hexdigest()
    assert payload_hash(EmailBytes(b"a")) == hashlib.sha256(b"message/rfc822\0a").hexdigest()
    assert payload_hash(EmailBytes(b"a")) != payload_hash(b"a")


def outcome(payload: bytes) -> str:
    """Return the text, or the message of a DecodeError. Other errors are raised."""
    try:
        return decode_text(payload).text
    except DecodeError as error:
        return str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    assert outcome(data).strip()


@given(st.text(min_size=1))
def test_utf_8_round_trips(text: str) -> None:
    try:
        decoded = decode_text(text.encode())
    except DecodeError:
        assert not text.strip() or "\0" in text or not text.strip("\u200b\ufeff").isprintable()
    else:
        assert decoded == DecodedText(text.removeprefix("\ufeff"), None)
