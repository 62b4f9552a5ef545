"""Descriptions of bytes that cannot be decoded, by their first bytes."""

from __future__ import annotations

_SIGNATURES = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run 'git lfs pull'"),
    (b"<!doctype html", "an HTML page, perhaps the error page of a failed download"),
    (b"<html", "an HTML page, perhaps the error page of a failed download"),
    (b"<svg", "an SVG drawing; convert it to PNG"),
    (b"<?xml", "an XML or SVG file; convert drawings to PNG"),
    (b"%pdf", "a PDF document; convert its pages to PNG"),
    (b"%!ps", "a PostScript file; convert it to PNG"),
    (b"pk\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"mz", "a Windows program"),
    (b"\x7felf", "a Linux program"),
    (b"\0\0\1\0", "an icon; convert it to PNG"),
    (b"8bps", "a Photoshop document; convert it to PNG"),
    (b"\xff\x0a", "a JPEG XL image; convert it to PNG"),
    (b"\0\0\0\x0cjxl ", "a JPEG XL image; convert it to PNG"),
    (b"v/1\x01", "an OpenEXR image; convert it to TIFF"),
    (b"#?radiance", "a Radiance HDR image; convert it to TIFF"),
    (b"simple  =", "a FITS file; convert it to TIFF"),
    (b"dds ", "a DDS texture; convert it to PNG"),
    (b"fujifilmccd-raw", "a raw photo; convert it to JPEG or TIFF"),
)
_PICTURES = (
    (b"\xff\xd8", "JPEG"),
    (b"\x89png", "PNG"),
    (b"gif8", "GIF"),
    (b"riff", "WebP"),
    (b"bm", "BMP"),
    (b"ii*\0", "TIFF"),
    (b"mm\0*", "TIFF"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


def describe_bytes(data: bytes) -> str:
    """Return a description of ``data`` that is not an image, by its first bytes."""
    start = _start(data)
    for signature, words in _SIGNATURES:
        if start.startswith(signature):
            return words
    if data[128:132] == b"DICM":
        return "a DICOM file; convert it to TIFF or PNG"
    if kind := _kind_of_jpeg(data):
        return kind
    for signature, name in _PICTURES:
        if start.startswith(signature) and _may_be(name, data):
            return f"it begins as {name} but is truncated or damaged ({len(data)} bytes)"
    if data[4:8] == b"ftyp":
        heif = data[8:12] in _HEIF_BRANDS
        return "HEIC: pip install pillow-heif" if heif else "a video, or a kind of HEIF that cannot be read"
    if not any(data):
        return f"{len(data)} zero bytes, perhaps from an interrupted copy"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in data[:40]):
        return f"text that begins with {data[:40].decode('ascii')!r}"
    return f"{len(data)} bytes of an unknown type that begin with {data[:8].hex(' ')}"


def _kind_of_jpeg(data: bytes) -> str:
    """Return the kind of a JPEG that cannot be read, empty for another file."""
    place = 2
    while data[:2] == b"\xff\xd8" and data[place : place + 1] == b"\xff" and place + 5 < len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in (0xC3, 0xC7, 0xCB, 0xCF, 0xF7):
            return "a lossless JPEG; convert it to PNG"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return "" if (bits := data[place + 4]) == 8 else f"a JPEG of {bits} bits; convert it to TIFF or PNG"
        if length < 2:
            break
        place += 2 + length
    return ""


def _may_be(name: str, data: bytes) -> bool:
    """Return whether the next bytes are those of the picture format too, as RIFF is also sound, and BM two letters."""
    return {"WebP": data[8:12] == b"WEBP" or len(data) < 12, "BMP": data[6:10] == bytes(4)}.get(name, True)


def describe_binary(data: bytes) -> str:
    """Return a description of ``data`` that is not text, by its first bytes."""
    start = _start(data)
    for signature, words in (*_PICTURES, *_SIGNATURES):
        if start.startswith(signature) and _may_be(words, data):
            return f"it looks like a {words} image" if (signature, words) in _PICTURES else words.partition(";")[0]
    zero = data.find(b"\0")
    if zero >= 0 and any(data):
        return f"byte {zero} of {len(data)} is zero; save UTF-16 text as UTF-8"
    return describe_bytes(data)


def _start(data: bytes) -> bytes:
    return data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
