"""Decoding of images to upright 8-bit RGB."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import warnings
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from embedpipe.decoding.formats.png import has_16_bits, read_samples
from embedpipe.decoding.formats.tiff import TiffPage
from embedpipe.decoding.pixels import samples_to_rgb, to_rgb
from embedpipe.decoding.samples import Range
from embedpipe.decoding.signatures import describe_bytes
from embedpipe.errors import DecodeError
from embedpipe.sources.boxes import Crop
from embedpipe.sources.tiff_pages import is_tiff, page_places

#: Largest image in pixels, checked before decoding. It is the limit of Pillow.
PIXEL_LIMIT = 178_956_970

#: Most scans of a JPEG. Progressive files have about ten.
SCAN_LIMIT = 100

#: A marker of a JPEG: no stuffed byte or restart of a scan, and no padding.
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_WITHOUT_LENGTH, _IMAGE_END, _SCAN_START = (0x01, 0xD8), 0xD9, 0xDA

# Formats of Pillow that are tried. EPS would run Ghostscript on untrusted files, and TGA accepts nearly any bytes.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "MPO", "JPEG2000", "PPM", "AVIF", "HEIF")

#: What Pillow says of whole files that it does not read.
_UNSUPPORTED = re.compile(r"unsupported|not supported|not available|unknown (pixel|raw|compression)", re.IGNORECASE)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class Decoded(NamedTuple):
    """An upright image of mode RGB, and what was left out or inferred: see `embedpipe.embedding.summary.remarks`."""

    image: Image.Image
    counts: Counter[str]


def decode_image(payload: Any, *, range: Range | None = None, channels: tuple[int, ...] = ()) -> Image.Image:
    """Decode one image.

    The result is the first frame of an animation or multi-page file, rotated upright by its EXIF orientation, with
    transparency composited on white. A colour profile whose colours are far from sRGB is converted to it.

    Parameters
    ----------
    payload : bytes, Crop, PIL.Image.Image or ndarray
        An encoded file, a part of a picture, an image, or uint8 pixels of shape (height, width) or (height, width,
        3 or 4).
    range : (float, float), optional
        The values that become 0 and 255 if the image has more than 8 bits. By default they are inferred: the smallest
        of 8, 10, 12, 14, 16, 24 and 32 bits that holds all values, and 0..1 for floats.
    channels : tuple of int
        Channels to take, counted from 1: one for gray, three for RGB. By default those that the file declares as
        colours.

    Returns
    -------
    PIL.Image.Image
        The image in mode RGB.

    Raises
    ------
    DecodeError
        The payload is empty, damaged, not an image, or has more than `PIXEL_LIMIT` pixels; or the range or the colours
        of its channels are not clear.
    """
    return decode_counted(payload, range, channels).image


def decode_counted(payload: Any, range: Range | None, channels: tuple[int, ...]) -> Decoded:
    """Decode one image as `decode_image` does, and count what is left out or inferred."""
    silence_pillow()
    if isinstance(payload, Crop):
        whole = decode_counted(payload.picture, range, channels)
        return Decoded(whole.image.crop(payload.box.place(*whole.image.size)), whole.counts)
    counts: Counter[str] = Counter()
    if isinstance(payload, bytes | bytearray | memoryview):
        return Decoded(_decode_bytes(bytes(payload), range, channels, counts), counts)
    image = _as_image(payload)
    try:
        _refuse_bomb(image)
        return Decoded(to_rgb(_upright(image), range, channels, counts), counts)
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"cannot decode a {image.mode} image of {image.width} x {image.height}: {error}") from error


def picture_hash(picture: Any) -> str:
    """Return the SHA-256, in hex, of the content of an image that is not encoded.

    Parameters
    ----------
    picture : PIL.Image.Image or ndarray
        The mode, size, pixels, palette, transparency and orientation are hashed.

    Raises
    ------
    DecodeError
        It is not an image, or its pixels cannot be loaded.
    """
    silence_pillow()
    image = _as_image(picture)
    try:
        _refuse_bomb(image)
        image.load()
        palette = image.getpalette("RGBA") if image.mode in ("P", "PA") else None
        header = (image.mode, image.size, palette, image.info.get("transparency"), orientation_of(image))
        return hashlib.sha256(repr(header).encode() + image.tobytes()).hexdigest()
    except DecodeError:
        raise
    except Exception as error:
        raise DecodeError(f"cannot load a {image.mode} image of {image.width} x {image.height}: {error}") from error


def _decode_bytes(data: bytes, range: Range | None, channels: tuple[int, ...], counts: Counter[str]) -> Image.Image:
    if not data:
        raise DecodeError("an image must not be empty, got 0 bytes")
    if data[:2] == b"\xff\xd8":
        refuse_many_scans(data)
    page = TiffPage(data) if is_tiff(data) else None
    format = "image"
    try:
        if page is not None:
            format = "TIFF"
            count_pages(data, counts)
            if not page.is_for_pillow or (channels and page.is_readable):
                _refuse_size(page.width, page.height)
                image = samples_to_rgb(page.read(), page.profile, range, channels, counts)
                return _turned(image, page.orientation)
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            format = image.format or format
            _refuse_bomb(image)
            if page is None:
                count_frames(image, counts)
            if has_16_bits(data):
                image.load()  # for an orientation after the pixels
                rgb = samples_to_rgb(read_samples(data, image), image.info.get("icc_profile"), range, channels, counts)
                return _turned(rgb, orientation_of(image))
            return to_rgb(_upright(image), range, channels, counts)
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        if page is not None:
            raise page.unsupported() from error
        raise DecodeError(f"not an image in a known format: {describe_bytes(data)}") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(f"too large to decode safely: {error}") from error
    except Exception as error:  # on invalid bytes Pillow raises many types, also MemoryError and KeyError
        kind = "unsupported kind of" if _UNSUPPORTED.search(str(error)) else "truncated or damaged"
        raise DecodeError(f"{kind} {format} of {len(data)} bytes: {error or type(error).__name__}") from error


def refuse_many_scans(data: bytes) -> None:
    """Raise DecodeError for a JPEG of many scans: each takes the time of a whole image."""
    halves = (
        np.frombuffer(data, "<u2", (len(data) - start) // 2, start) for start in (0, 1)
    )  # faster than bytes.count
    if sum(int(np.count_nonzero(half == 0xDAFF)) for half in halves) <= SCAN_LIMIT:
        return
    if (scans := _count_scans(data)) > SCAN_LIMIT:
        raise DecodeError(f"a JPEG must have at most {SCAN_LIMIT} scans, got {scans}: save it again")


def _count_scans(data: bytes) -> int:
    """Return the number of scans of a JPEG; other bytes, as of the film behind a motion photo, may look like scans."""
    scans, place = 0, 2
    while found := _MARKER.search(data, place):
        marker, place = found[1][0], found.end()
        if marker == _IMAGE_END:
            break
        if marker not in _WITHOUT_LENGTH:
            scans += marker == _SCAN_START
            place += int.from_bytes(data[place : place + 2], "big")
    return scans


def count_pages(data: bytes, counts: Counter[str]) -> None:
    """Count the pages of a TIFF after the first."""
    try:
        left_out = len(page_places(data)) - 1
    except DecodeError:  # the pages after the first are truncated
        left_out = 1
    if left_out:
        counts["files of several pages"] += 1
        counts["pages left out"] += left_out


def count_frames(image: Image.Image, counts: Counter[str]) -> None:
    """Count the frames of an animation after the first, and the other views of a stereo image or panorama."""
    left_out = getattr(image, "n_frames", 1) - 1
    if image.format == "MPO":  # others are previews and maps of brightness
        entries = getattr(image, "mpinfo", {}).get(0xB002, ())
        left_out = sum("Multi-Frame" in entry["Attribute"]["MPType"] for entry in entries[1:])
    if left_out > 0:
        counts["files of several frames"] += 1
        counts["frames left out"] += left_out


def _as_image(payload: Any) -> Image.Image:
    if isinstance(payload, Image.Image):
        return payload
    if not isinstance(payload, np.ndarray):
        raise DecodeError(f"an image must be encoded bytes, a PIL image or a uint8 array, got {type(payload).__name__}")
    known = payload.ndim == 2 or (payload.ndim == 3 and payload.shape[2] in (3, 4))
    if payload.dtype != np.uint8 or not known or 0 in payload.shape:
        raise DecodeError(
            "an array must be uint8 of shape (height, width) or (height, width, 3 or 4), and not empty, "
            f"got shape {payload.shape} and type {payload.dtype}"
        )
    return Image.fromarray(np.ascontiguousarray(payload))


def _refuse_bomb(image: Image.Image) -> None:
    _refuse_size(image.width, image.height)


def _refuse_size(width: int, height: int) -> None:
    pixels = width * height
    if pixels > PIXEL_LIMIT:
        raise DecodeError(
            f"too large to decode safely: an image must have at most {PIXEL_LIMIT} pixels, "
            f"got {width} x {height} = {pixels}: scale the file down"
        )
    if not pixels:
        raise DecodeError(f"an image must have pixels, got {width} x {height}")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # before reading the orientation: PNG may have it after the pixels, and TIFF rotates on load
    return _turned(image, orientation_of(image))


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    if method is None:
        return image
    info, turned = image.info, image.transpose(method)
    turned.info, turned.format = info, image.format  # keeps the colour key
    return turned


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if there is none. The number may be invalid."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # an image with broken EXIF is still usable
        return 1
    return value if isinstance(value, int) else 1


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that are tried, with HEIF if ``pillow_heif`` is installed."""
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def silence_pillow() -> None:
    """Turn off the warnings of Pillow about large images and corrupt metadata, permanently.

    ``warnings.catch_warnings`` acts on the whole process, so concurrent threads would undo each other's filters. The
    filter is checked on each call, as other users of ``catch_warnings`` restore earlier filters.
    """
    if _QUIET not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")


def available_decoders() -> dict[str, str]:
    """Return the image formats that each library decodes.

    Returns
    -------
    dict
        Library and version -> the formats that it reads, or how to install it: ``{"simplejpeg 1.9.0": "JPEG", ...}``.
    """
    version = importlib.metadata.version
    formats = readable_formats()
    turbo = features.version_feature("libjpeg_turbo")
    pillow = f"Pillow {version('pillow')}" + (f" with libjpeg-turbo {turbo}" if turbo else "")
    others = [name for name in formats if name not in ("JPEG", "HEIF")]
    heif = f"pillow-heif {version('pillow-heif')}" if "HEIF" in formats else "pillow-heif"
    return {
        f"simplejpeg {version('simplejpeg')}": "JPEG",
        pillow: ", ".join([*others, "CMYK or damaged JPEG"]),
        heif: "HEIF" if "HEIF" in formats else "not installed: pip install pillow-heif",
    }
