"""Makes a folder of odd but good image files, and of broken ones, as people's folders have them."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

Maker = Callable[[], bytes]


def picture(mode: str = "RGB", size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Return a smooth picture, the same each time."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> bytes:
    """Return a JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(), "JPEG", exif=exif)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    """Return a PNG file with any header and any compressed data, right or wrong."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def _transparent() -> Image.Image:
    image = picture("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _transparent_palette() -> bytes:
    return encode(picture("P"), "PNG", transparency=3)


def _sixteen_bits() -> Image.Image:
    return Image.fromarray((np.arange(48 * 40, dtype=np.uint32).reshape(40, 48) * 34).astype(np.uint16))


def _frames() -> list[Image.Image]:
    return [picture(), Image.new("RGB", (48, 40), "red")]


def noisy() -> Image.Image:
    """Return a picture that compresses badly, the same each time."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8))


def _wrong_checksum() -> bytes:
    """Return a PNG with a wrong checksum of its right data, which Pillow does not look at."""
    data = bytearray(encode(noisy(), "PNG"))
    end = data.index(b"IEND") - 8
    data[end : end + 4] = bytes(4)
    return bytes(data)


def _with_broken_exif() -> bytes:
    return encode(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")


GOOD: dict[str, Maker] = {
    **{f"exif-{i}.jpg": lambda i=i: oriented(i) for i in (2, 3, 6, 8)},
    "broken-exif.jpg": _with_broken_exif,
    "cmyk.jpg": lambda: encode(picture("CMYK"), "JPEG"),
    "gray.jpg": lambda: encode(picture("L"), "JPEG"),
    "progressive.jpg": lambda: encode(picture(), "JPEG", progressive=True),
    "palette.png": lambda: encode(picture("P"), "PNG"),
    "palette-transparent.png": _transparent_palette,
    "transparent.png": lambda: encode(_transparent(), "PNG"),
    "gray-alpha.png": lambda: encode(_transparent().convert("LA"), "PNG"),
    "one-bit.png": lambda: encode(picture("1"), "PNG"),
    "sixteen-bits.png": lambda: encode(_sixteen_bits(), "PNG"),
    "sixteen-bits.tif": lambda: encode(_sixteen_bits(), "TIFF"),
    "float.tif": lambda: encode(Image.fromarray(np.asarray(picture("F")) / 255), "TIFF"),
    "lab.tif": lambda: encode(Image.new("LAB", (48, 40), (120, 140, 110)), "TIFF"),
    "pages.tiff": lambda: encode(_frames()[0], "TIFF", save_all=True, append_images=_frames()[1:]),
    "animated.gif": lambda: encode(_frames()[0], "GIF", save_all=True, append_images=_frames()[1:]),
    "animated.webp": lambda: encode(_frames()[0], "WEBP", save_all=True, append_images=_frames()[1:]),
    "bitmap.bmp": lambda: encode(picture(), "BMP"),
    "gray.pgm": lambda: encode(picture("L"), "PPM"),
    "UPPER.JPG": lambda: encode(picture(), "JPEG"),
    "really-a-png.jpg": lambda: encode(picture(), "PNG"),
    "a name with spaces.jpg": lambda: encode(picture(), "JPEG"),
    "ünïcödé-写真.jpg": lambda: encode(picture(), "JPEG"),
    "50%20off#1?x=&y.jpg": lambda: encode(picture(), "JPEG"),
    "new\nline.jpg": lambda: encode(picture(), "JPEG"),
    "wrong-checksum.png": _wrong_checksum,
    "one-pixel.png": lambda: encode(picture(size=(1, 1)), "PNG"),
    "thin.png": lambda: encode(picture(size=(1, 3000)), "PNG"),
    "folder.jpg/inside.jpg": lambda: encode(picture(), "JPEG"),
}
if features.check("avif"):
    GOOD["modern.avif"] = lambda: encode(picture(), "AVIF")


def _cut(image: Maker, share: float) -> Maker:
    def cut() -> bytes:
        data = image()
        return data[: int(len(data) * share)]

    return cut


def _jpeg() -> bytes:
    return encode(noisy(), "JPEG")


def _png() -> bytes:
    return encode(noisy(), "PNG")


def _corrupt_png() -> bytes:
    data = bytearray(_png())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    return bytes(data)


def _jpeg_without_frame() -> bytes:
    data = _jpeg()
    start = data.index(b"\xff\xc0")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def _bomb_gif() -> bytes:
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x02\x00;"
    )


def _not_a_number() -> bytes:
    values = np.zeros((40, 48), np.float32)
    values[3, 4] = np.nan
    return encode(Image.fromarray(values), "TIFF")


BROKEN: dict[str, Maker] = {
    "empty.jpg": lambda: b"",
    "one-byte.png": lambda: b"\x89",
    "truncated-early.jpg": _cut(_jpeg, 0.02),
    "truncated-header.jpg": _cut(_jpeg, 0.2),
    "truncated-half.jpg": _cut(_jpeg, 0.5),
    "truncated-late.jpg": _cut(_jpeg, 0.9),
    "truncated-header.png": lambda: _png()[:20],
    "truncated-half.png": _cut(_png, 0.5),
    "truncated-late.png": _cut(_png, 0.9),
    "truncated.webp": _cut(lambda: encode(noisy(), "WEBP"), 0.5),
    "truncated-header.gif": lambda: encode(noisy(), "GIF")[:9],
    "truncated.gif": _cut(lambda: encode(noisy(), "GIF"), 0.7),
    "truncated.tif": _cut(lambda: encode(noisy(), "TIFF"), 0.5),
    "truncated.bmp": _cut(lambda: encode(noisy(), "BMP"), 0.5),
    "truncated.pgm": _cut(lambda: encode(noisy().convert("L"), "PPM"), 0.5),
    "text.jpg": lambda: b"this was to be a picture of a cat\n",
    "error-page.png": lambda: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "drawing.jpg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
    "archive.jpg": lambda: b"PK\x03\x04" + bytes(100),
    "document.jpg": lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "postscript.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "program.jpg": lambda: b"MZ\x90\0" + bytes(100),
    "lfs-pointer.jpg": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
    "random.jpg": lambda: np.random.default_rng(1).integers(0, 256, 4096, dtype=np.uint8).tobytes(),
    "zeros.jpg": lambda: bytes(4096),
    "bomb.png": lambda: png(60000, 60000, zlib.compress(bytes(1000))),
    "bomb.gif": _bomb_gif,
    "no-pixels.png": lambda: png(0, 0, zlib.compress(b"")),
    "no-data.png": lambda: png(40, 40, b""),
    "corrupt-data.png": _corrupt_png,
    "no-frame.jpg": _jpeg_without_frame,
    "jpeg-start-only.jpg": lambda: b"\xff\xd8\xff\xe0",
    "not-a-number.tif": _not_a_number,
    "float-of-no-range.tif": lambda: encode(picture("F"), "TIFF"),
    "video.heic": lambda: b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(64),
}


def write_oddities(folder: Path | str) -> dict[str, str | None]:
    """Write all odd and broken files into ``folder``.

    Returns
    -------
    dict
        Relative name to None where the file is good, or to the stage at which it fails: ``list``, ``read``
        or ``decode``.
    """
    folder = Path(folder)
    expected: dict[str, str | None] = {}
    for makers, stage in ((GOOD, None), (BROKEN, "decode")):
        for name, make in makers.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make())
            expected[name] = stage
    (folder / "empty-folder.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    expected |= dict.fromkeys(("empty-folder.jpg", "dangling.jpg", "itself.jpg"), "read")
    if sys.platform != "win32":
        os.mkfifo(folder / "pipe.jpg")
        expected["pipe.jpg"] = "read"
    return expected
