"""JPEG files and other formats of odd kinds, each with its pixels and counts or the reason of its refusal."""

from __future__ import annotations

import struct

import numpy as np
import picture_files as files
from oddities import encode
from picture_cases import (
    ALPHA,
    EXIF,
    FRAMES,
    INKS,
    PICTURE,
    ROTATED,
    TWELVE,
    TWO_FRAMES,
    WIDE,
    Case,
    naive_cmyk,
    on_white,
    photo,
    with_profile,
)
from picture_files import GRAY, RGB, gray_to_rgb
from PIL import Image, features

# The sixteen mixtures of full inks: paper white, and gray by their sum, black with K.
LIGHTNESS = np.array(
    [max(0.0, 100 - 30 * (i & 8) / 8 - 30 * (i & 4) / 4 - 10 * (i & 2) / 2) * (1 - (i & 1)) for i in range(16)]
)
CMYK_PROFILE = files.cmyk_profile(np.stack([LIGHTNESS, 0 * LIGHTNESS, 0 * LIGHTNESS], axis=1))
NO_INK = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
CYAN = Image.new("CMYK", (8, 8), (255, 0, 0, 0))


def gray_of_lightness(lightness: float) -> int:
    """Return the gray level of sRGB with this CIELAB lightness."""
    return int(files.srgb_encoded(np.array([((lightness + 16) / 116) ** 3]))[0])


def bitmap_565() -> bytes:
    """Return a BMP of 16 bits: 5 red, 6 green, 5 blue."""
    words = (RGB[..., 0].astype(np.uint16) >> 3 << 11) | (RGB[..., 1].astype(np.uint16) >> 2 << 5) | (RGB[..., 2] >> 3)
    data = words[::-1].astype("<u2").tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, 64, 48, 1, 16, 3, len(data), 0, 0, 0, 0) + struct.pack(
        "<3I", 0xF800, 0x7E0, 0x1F
    )
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


def precision_12() -> bytes:
    """Return a JPEG that declares 12 bits."""
    data = bytearray(photo(PICTURE, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    return bytes(data)


def many_scans(before: bytes = b"") -> bytes:
    """Return a progressive JPEG with 200 scans more, which follow some segments."""
    data = encode(PICTURE, "JPEG", progressive=True)
    return data[:-2] + before + data[data.rindex(b"\xff\xda") : -2] * 200 + data[-2:]


def stereo() -> bytes:
    """Return an MPO of two views."""
    data = bytearray(encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE]))
    first = data.index(struct.pack("<I", 0x00030000), data.index(b"MPF\0") + 20)  # its type is baseline
    struct.pack_into("<I", data, first + 16, 0x00020002)
    return bytes(data)


OTHERS = {
    "jpeg-411": Case(encode(PICTURE, "JPEG", quality=100, subsampling="4:1:1"), RGB, tolerance=24),
    "jpeg-12-bits": Case(precision_12(), "a JPEG of 12 bits"),
    "jpeg-cmyk": Case(
        photo(Image.frombytes("CMYK", (64, 48), INKS.tobytes()), "JPEG"),
        naive_cmyk(INKS),
        {"CMYK images without a profile": 1},
        6,
    ),
    "jpeg-cmyk-paper": Case(photo(NO_INK, "JPEG", icc_profile=CMYK_PROFILE), np.full((8, 8, 3), 255), tolerance=1),
    "jpeg-cmyk-cyan": Case(
        photo(CYAN, "JPEG", icc_profile=CMYK_PROFILE), np.full((8, 8, 3), gray_of_lightness(70)), tolerance=3
    ),
    "jpeg-display-p3": Case(
        with_profile(files.P3, 2.2, format="JPEG"), files.from_profile(RGB, files.P3, 2.2), tolerance=14
    ),
    "jpeg-linear-gray": Case(
        with_profile(None, 1.0, np.full((8, 8), 60, np.uint8), "JPEG"),
        np.full((8, 8, 3), files.srgb_encoded(np.array(60 / 255))),
        tolerance=2,
    ),
    "mpo-stereo": Case(stereo(), RGB, {"files of several frames": 1, "frames left out": 1}, 16),
    "mpo-preview": Case(encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE]), RGB, {}, 16),
    "many-scans": Case(many_scans(), "scans"),
    "many-scans-behind-a-comment": Case(many_scans(b"\xff\xfe\0\x04\xff\xd9"), "scans"),
    "motion-photo": Case(encode(PICTURE, "JPEG", quality=100) + b"\0\0\0\x18ftypmp42" + b"\xff\xda" * 200, RGB, {}, 16),
    "gif-animated": Case(
        encode(PICTURE.quantize(64), "GIF", **FRAMES), np.asarray(PICTURE.quantize(64).convert("RGB")), TWO_FRAMES
    ),
    "webp-animated": Case(photo(PICTURE, "WEBP", **FRAMES), RGB, TWO_FRAMES),
    "webp-rotated": Case(photo(PICTURE, "WEBP", exif=EXIF), ROTATED),
    "webp-alpha": Case(
        photo(Image.fromarray(np.dstack([RGB, ALPHA])), "WEBP", exact=True),
        on_white(RGB, ALPHA),
        {"images with transparency": 1},
        1,
    ),
    "bmp-565": Case(bitmap_565(), RGB, tolerance=8),
    "pgm-12-bits": Case(b"P5 64 48 4095\n" + TWELVE[..., 0].astype(">u2").tobytes(), gray_to_rgb(GRAY)),
    "pgm-16-bits-dark": Case(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 2570), gray_to_rgb(np.array([[0, 10]]))),
    "ppm-12-bits": Case(b"P6 64 48 4095\n" + TWELVE.astype(">u2").tobytes(), RGB),
    "jpeg-2000-16-bits": Case(encode(Image.fromarray(WIDE[..., 0]), "JPEG2000", irreversible=False), gray_to_rgb(GRAY)),
    "icon": Case(encode(PICTURE, "ICO"), "an icon"),
    "photoshop": Case(b"8BPS" + bytes(40), "Photoshop"),
    "jpeg-xl": Case(b"\xff\x0a" + bytes(40), "JPEG XL"),
}
if features.check("avif"):
    OTHERS["avif-animated"] = Case(
        encode(PICTURE, "AVIF", quality=100, subsampling="4:4:4", **FRAMES), RGB, TWO_FRAMES, 8
    )
    OTHERS["avif-rotated"] = Case(encode(PICTURE, "AVIF", quality=100, subsampling="4:4:4", exif=EXIF), ROTATED, {}, 8)
