"""TIFF files of odd kinds, each with its pixels and counts or the reason of its refusal."""

from __future__ import annotations

import numpy as np
import picture_files as files
from oddities import encode
from picture_cases import (
    ALPHA,
    BANDS,
    FLOATS,
    FRAMES,
    INKS,
    PICTURE,
    RANGE_12,
    ROTATED,
    THREE,
    TWELVE,
    TWO_PAGES,
    WIDE,
    Case,
    made,
    naive_cmyk,
    on_white,
)
from picture_files import GRAY, RGB, gray_to_rgb, tiff
from PIL import Image

#: Differences of the planes of bytes of `FLOATS`, as the floating-point predictor stores them.
_planes = np.ascontiguousarray(FLOATS[..., 0].astype(">f4")).view(np.uint8).reshape(48, 64, 4).transpose(0, 2, 1)
DIFFERENCES = np.diff(_planes.reshape(48, -1), axis=1, prepend=np.uint8(0)).tobytes()

TIFFS = {
    "planar-16": Case(made(np.moveaxis(WIDE, -1, 0), photometric="rgb", planarconfig="separate"), RGB),
    "planar-8": Case(made(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"), RGB),
    "planar-16-tiles": Case(
        made(np.moveaxis(WIDE, -1, 0), photometric="rgb", planarconfig="separate", tile=(16, 16)), RGB
    ),
    "rgb-16": Case(made(WIDE, photometric="rgb"), RGB),
    "rgb-16-big-endian-deflate": Case(made(WIDE, photometric="rgb", byteorder=">", compression="zlib"), RGB),
    "rgb-16-tiles": Case(made(WIDE, photometric="rgb", tile=(32, 32)), RGB),
    "rgb-16-strips": Case(made(WIDE, photometric="rgb", rowsperstrip=7), RGB),
    "rgb-16-rounds": Case(
        made(np.full((4, 4, 3), [383, 384, 65535], np.uint16), photometric="rgb"), np.full((4, 4, 3), [1, 1, 255])
    ),
    "rgb-16-lzw": Case(
        tiff(
            [files.compressed(WIDE.astype("<u2").tobytes(), "tiff_lzw")],
            (48, 64),
            t258=(16,) * 3,
            t259=5,
            t262=2,
            t277=3,
        ),
        RGB,
    ),
    "rgb-16-lzw-predictor": Case(
        tiff(
            [files.compressed(np.diff(WIDE, axis=1, prepend=np.uint16(0)).astype(">u2").tobytes(), "tiff_lzw")],
            (48, 64),
            ">",
            t258=(16,) * 3,
            t259=5,
            t262=2,
            t277=3,
            t317=2,
        ),
        RGB,
    ),
    "rgb-16-zstd": Case(
        tiff(
            [files.compressed(WIDE.astype("<u2").tobytes(), "zstd")],
            (48, 64),
            t258=(16,) * 3,
            t259=50000,
            t262=2,
            t277=3,
        ),
        RGB,
    ),
    "rgb-16-bigtiff": Case(made(WIDE, photometric="rgb", bigtiff=True), RGB),
    "white-is-zero-16": Case(made(65535 - WIDE[..., 0], photometric="miniswhite"), gray_to_rgb(GRAY)),
    "white-is-zero-8": Case(made(255 - GRAY, photometric="miniswhite"), gray_to_rgb(GRAY)),
    "white-is-zero-1": Case(
        tiff([files.packed(GRAY < 128, 1)], (48, 64), t258=1, t262=0), gray_to_rgb((GRAY >= 128) * 255)
    ),
    "black-is-zero-1": Case(tiff([files.packed(GRAY >= 128, 1)], (48, 64), t258=1), gray_to_rgb((GRAY >= 128) * 255)),
    "black-is-zero-4": Case(tiff([files.packed(GRAY >> 4, 4)], (48, 64), t258=4), gray_to_rgb((GRAY >> 4) * 17)),
    "12-bit-in-16": Case(made(TWELVE[..., 0], photometric="minisblack"), gray_to_rgb(GRAY), RANGE_12),
    "12-bit-rgb-in-16": Case(made(TWELVE, photometric="rgb"), RGB, RANGE_12),
    "12-bit-white-is-zero": Case(made(4095 - TWELVE[..., 0], photometric="miniswhite"), gray_to_rgb(GRAY), RANGE_12),
    "12-bit-packed": Case(tiff([files.packed(TWELVE[..., 0], 12)], (48, 64), t258=12), gray_to_rgb(GRAY)),
    "12-bit-given-range": Case(
        made(TWELVE[..., 0], photometric="minisblack"), gray_to_rgb(GRAY), options={"range": (0, 4095)}
    ),
    "16-bit-given-range-clips": Case(
        made(np.full((2, 2), [100, 300], np.uint16)),
        gray_to_rgb(np.full((2, 2), [0, 255])),
        {"images with values beyond the range": 1},
        options={"range": (150, 250)},
    ),
    "uint32": Case(made(RGB[..., 0].astype(np.uint32) * 16843009), gray_to_rgb(GRAY)),
    "uint32-of-16-bits": Case(made(WIDE[..., 0].astype(np.uint32)), gray_to_rgb(GRAY), {"range 0:65535": 1}),
    "uint64": Case(made(GRAY.astype(np.uint64)), gray_to_rgb(GRAY), {"range 0:255": 1}),
    "int16": Case(made(TWELVE[..., 0].astype(np.int16)), gray_to_rgb(GRAY), RANGE_12),
    "int16-negative": Case(made(GRAY.astype(np.int16) - 100), "values from -100 to 155 .*range='LOW:HIGH'"),
    "int16-negative-given-range": Case(
        made(GRAY.astype(np.int16) - 100), gray_to_rgb(GRAY), options={"range": (-100, 155)}
    ),
    "int8-negative": Case(made((GRAY // 2).astype(np.int8) - 100), "range='LOW:HIGH'"),
    "float32-rgb": Case(made(FLOATS, photometric="rgb"), RGB),
    "float16": Case(made(FLOATS.astype(np.float16), photometric="rgb"), RGB, tolerance=1),
    "float64-of-8-bits": Case(made(GRAY.astype(np.float64)), gray_to_rgb(GRAY), {"range 0:255": 1}),
    "float32-deflate-predictor": Case(
        tiff([files.compressed(DIFFERENCES, "tiff_adobe_deflate")], (48, 64), t258=32, t259=8, t317=3, t339=3),
        gray_to_rgb(GRAY),
    ),
    "hdr": Case(made(FLOATS * 12.5, photometric="rgb"), "values from 0 to 12.5 .*range='LOW:HIGH'"),
    "hdr-given-range": Case(made(FLOATS * 12.5, photometric="rgb"), RGB, options={"range": (0, 12.5)}),
    "float-nan": Case(made(np.full((4, 4), np.nan, np.float32)), "NaN", options={"range": (0, 1)}),
    "complex": Case(made(GRAY.astype(np.complex64)), "not supported"),
    "five-bands": Case(made(BANDS, photometric="minisblack", planarconfig="separate"), "5 channels .*channels="),
    "five-bands-given-channels": Case(
        made(BANDS, photometric="minisblack", planarconfig="separate"),
        np.stack([BANDS[4], BANDS[0], BANDS[2]], axis=-1),
        options={"channels": (5, 1, 3)},
    ),
    "five-bands-16-bit-given-channel": Case(
        made(np.moveaxis(BANDS, 0, -1).astype(np.uint16) * 257, photometric="minisblack", planarconfig="contig"),
        gray_to_rgb(BANDS[1]),
        options={"channels": (2,)},
    ),
    "six-th-of-five-bands": Case(
        made(BANDS, photometric="minisblack", planarconfig="separate"), "the image has 5", options={"channels": (6,)}
    ),
    "two-bands": Case(made(BANDS[:2], photometric="minisblack", planarconfig="separate"), "2 channels"),
    "rgb-and-infrared": Case(
        made(np.dstack([RGB, GRAY]), photometric="rgb", extrasamples=["unspecified"]),
        RGB,
        {"images with channels left out": 1, "channels left out": 1},
    ),
    "rgb-alpha": Case(
        made(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=["unassalpha"]),
        on_white(RGB, ALPHA),
        {"images with transparency": 1},
        1,
    ),
    "rgb-16-alpha": Case(
        made(np.dstack([RGB, ALPHA]).astype(np.uint16) * 257, photometric="rgb", extrasamples=["unassalpha"]),
        on_white(RGB, ALPHA),
        {"images with transparency": 1},
        1,
    ),
    "rgb-16-premultiplied": Case(
        made(
            np.dstack([(RGB * (ALPHA[..., None] / 255)).round(), ALPHA]).astype(np.uint16) * 257,
            photometric="rgb",
            extrasamples=["assocalpha"],
        ),
        on_white(RGB, ALPHA),
        {"images with transparency": 1},
        1,
    ),
    "12-bit-rgb-with-alpha": Case(
        made(np.dstack([TWELVE, np.full((48, 64), 65535, np.uint16)]), photometric="rgb", extrasamples=["unassalpha"]),
        RGB,
        RANGE_12,
    ),
    "palette": Case(encode(THREE, "TIFF"), np.asarray(THREE.convert("RGB"))),
    "cmyk": Case(made(INKS, photometric="separated"), naive_cmyk(INKS), {"CMYK images without a profile": 1}, 1),
    "cmyk-16": Case(
        made(INKS.astype(np.uint16) * 257, photometric="separated"),
        naive_cmyk(INKS),
        {"CMYK images without a profile": 1},
        1,
    ),
    "jpeg-in-tiff": Case(encode(PICTURE, "TIFF", compression="jpeg", quality=100), RGB, tolerance=12),
    "fax": Case(encode(Image.fromarray(GRAY >= 128), "TIFF", compression="group4"), gray_to_rgb((GRAY >= 128) * 255)),
    "pages": Case(encode(PICTURE, "TIFF", **FRAMES), RGB, TWO_PAGES),
    "pages-16": Case(
        made(np.stack([WIDE[..., 0], WIDE[..., 1]]), photometric="minisblack"),
        gray_to_rgb(GRAY),
        {"files of several pages": 1, "pages left out": 1},
    ),
    "rotated-16": Case(tiff([WIDE.astype("<u2").tobytes()], (48, 64), t258=(16,) * 3, t262=2, t277=3, t274=6), ROTATED),
    "truncated-16": Case(made(WIDE, photometric="rgb")[:-3000], "truncated"),
    "short-strip": Case(tiff([bytes(100)], (48, 64), t258=16), "truncated"),
    "huge": Case(tiff([bytes(100)], (100_000, 100_000), t258=16), "too large"),
}
