"""PNG files of odd kinds, each with its pixels and counts."""

from __future__ import annotations

import struct

import numpy as np
import picture_files as files
from oddities import encode, png_chunk
from picture_cases import (
    ALPHA,
    EXIF,
    FRAMES,
    PICTURE,
    RANGE_12,
    ROTATED,
    TWELVE,
    TWO_FRAMES,
    WIDE,
    Case,
    on_white,
    with_profile,
)
from picture_files import GRAY, RGB, gray_to_rgb, png_file

KEY = png_chunk(b"tRNS", struct.pack(">3H", *WIDE[0, 0]))
PNGS = {
    "gray-16": Case(png_file(WIDE[..., 0], 0, 16), gray_to_rgb(GRAY)),
    "rgb-16": Case(png_file(WIDE, 2, 16), RGB),
    "12-bit-rgb-in-16": Case(png_file(TWELVE, 2, 16), RGB, RANGE_12),
    "12-bit-gray-in-16": Case(png_file(TWELVE[..., 0], 0, 16), gray_to_rgb(GRAY), RANGE_12),
    "rgb-16-interlaced": Case(png_file(WIDE, 2, 16, interlaced=True), RGB),
    "rgb-interlaced": Case(png_file(RGB, 2, 8, interlaced=True), RGB),
    "gray-alpha-16": Case(
        png_file(np.dstack([WIDE[..., 0], ALPHA * np.uint16(257)]), 4, 16),
        on_white(gray_to_rgb(GRAY), ALPHA),
        {"images with transparency": 1},
        1,
    ),
    "12-bit-gray-alpha": Case(
        png_file(np.dstack([TWELVE[..., 0], np.full((48, 64), 65535)]), 4, 16), gray_to_rgb(GRAY), RANGE_12
    ),
    "rgb-alpha-16": Case(
        png_file(np.dstack([WIDE, ALPHA * np.uint16(257)]), 6, 16),
        on_white(RGB, ALPHA),
        {"images with transparency": 1},
        1,
    ),
    "rgb-16-key": Case(
        png_file(WIDE, 2, 16, KEY),
        np.where(np.equal(RGB, RGB[0, 0]).all(axis=2, keepdims=True), 255, RGB),
        {"images with transparency": 1},
    ),
    "gray-16-key": Case(
        png_file(WIDE[..., 0], 0, 16, png_chunk(b"tRNS", struct.pack(">H", WIDE[0, 9, 0]))),
        gray_to_rgb(np.where(np.equal(GRAY, GRAY[0, 9]), 255, GRAY)),
        {"images with transparency": 1},
    ),
    "gray-2": Case(png_file(GRAY >> 6, 0, 2), gray_to_rgb((GRAY >> 6) * 85)),
    "one-bit": Case(png_file(GRAY >> 7, 0, 1), gray_to_rgb((GRAY >> 7) * 255)),
    "palette-key": Case(
        png_file(GRAY >> 7, 3, 1, png_chunk(b"PLTE", bytes((9, 8, 7, 60, 50, 40))) + png_chunk(b"tRNS", b"\0")),
        np.where((GRAY >> 7)[..., None] == 0, 255, np.array([60, 50, 40])),
        {"images with transparency": 1},
    ),
    "opaque-alpha": Case(png_file(np.dstack([RGB, np.full((48, 64), 255)]), 6), RGB),
    "rotated": Case(encode(PICTURE, "PNG", exif=EXIF), ROTATED),
    "rotated-16": Case(png_file(WIDE, 2, 16, png_chunk(b"eXIf", EXIF[6:])), ROTATED),
    "animated": Case(encode(PICTURE, "PNG", **FRAMES), RGB, TWO_FRAMES),
    "display-p3": Case(with_profile(files.P3, 2.2), files.from_profile(RGB, files.P3, 2.2), tolerance=3),
    "prophoto": Case(with_profile(files.PROPHOTO, 1.8), files.from_profile(RGB, files.PROPHOTO, 1.8), tolerance=3),
    "near-srgb": Case(with_profile(files.SRGB, 2.2), RGB),
    "linear-gray": Case(with_profile(None, 1.0, GRAY), gray_to_rgb(files.srgb_encoded(GRAY / 255)), tolerance=2),
    "broken-profile": Case(encode(PICTURE, "PNG", icc_profile=bytes(200)), RGB, {"unreadable colour profiles": 1}),
    "gray-with-rgb-profile": Case(
        with_profile(files.P3, 1.0, GRAY), gray_to_rgb(files.srgb_encoded(GRAY / 255)), tolerance=3
    ),
}
