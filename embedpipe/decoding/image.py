"""Decoding of images to upright 8-bit RGB."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from embedpipe.decoding.pixels import to_rgb
from embedpipe.decoding.signatures import describe_bytes
from embedpipe.errors import DecodeError

#: Largest image in pixels, checked before decoding. It is the limit of Pillow.
PIXEL_LIMIT = 178_956_970

# Formats of Pillow that are tried. EPS would run Ghostscript on untrusted files, and TGA accepts nearly any bytes.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "MPO", "JPEG2000", "PPM", "AVIF", "HEIF")

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


def decode_image(payload: Any) -> Image.Image:
    """Decode one image.

    The result is the first frame of an animation or multi-page file, rotated upright by its EXIF orientation, with
    transparency composited on white and 16-bit values scaled to 8 bits with rounding.

    Parameters
    ----------
    payload : bytes, PIL.Image.Image or ndarray
        An encoded file, an image, or uint8 pixels of shape (height, width) or (height, width, 3 or 4).

    Returns
    -------
    PIL.Image.Image
        The image in mode RGB.

    Raises
    ------
    DecodeError
        The payload is empty, damaged, not an image, or has more than `PIXEL_LIMIT` pixels.
    """
    silence_pillow()
    if isinstance(payload, bytes | bytearray | memoryview):
        return _decode_bytes(bytes(payload))
    image = _as_image(payload)
    try:
        _refuse_bomb(image)
        return to_rgb(_upright(image))
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


def _decode_bytes(data: bytes) -> Image.Image:
    if not data:
        raise DecodeError("an image must not be empty, got 0 bytes")
    format = "image"
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            format = image.format or format
            _refuse_bomb(image)
            return to_rgb(_upright(image))
    except DecodeError:
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(f"not an image in a known format: {describe_bytes(data)}") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(f"too large to decode safely: {error}") from error
    except Exception as error:  # on invalid bytes Pillow raises many types, also MemoryError and KeyError
        raise DecodeError(
            f"truncated or damaged {format} of {len(data)} bytes: {error or type(error).__name__}"
        ) from error


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
    pixels = image.width * image.height
    if pixels > PIXEL_LIMIT:
        raise DecodeError(
            f"too large to decode safely: an image must have at most {PIXEL_LIMIT} pixels, "
            f"got {image.width} x {image.height} = {pixels}: scale the file down"
        )
    if not pixels:
        raise DecodeError(f"an image must have pixels, got {image.width} x {image.height}")


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # before reading the orientation: PNG may have it after the pixels, and TIFF rotates on load
    method = _UPRIGHT.get(orientation_of(image))
    if method is None:
        return image
    info, image = image.info, image.transpose(method)
    image.info = info  # keeps the colour key
    return image


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
