"""Photographs and texts of scikit-learn, which every machine has, to measure with if the user names no source."""

from __future__ import annotations

import io
import re
from importlib.resources import files

from PIL import Image

#: Width and height of the photographs that are made from each of the two; common sizes of data sets.
SIZES = ((500, 375), (375, 500), (640, 427), (427, 427), (640, 480), (1024, 683))
QUALITY = 90


def photographs() -> list[bytes]:
    """Return JPEG files of several sizes and shapes."""
    payloads = []
    for file in files("sklearn.datasets.images").iterdir():
        if file.name.endswith(".jpg"):
            with Image.open(io.BytesIO(file.read_bytes())) as picture:
                payloads += [_jpeg(picture.convert("RGB"), size) for size in SIZES]
    return payloads


def _jpeg(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """Return the centre of a picture, cropped to the shape of ``size`` and resized to it, as a JPEG file."""
    width, height = picture.size
    scale = min(width / size[0], height / size[1])
    left, top = (width - scale * size[0]) / 2, (height - scale * size[1]) / 2
    box = (left, top, left + scale * size[0], top + scale * size[1])
    payload = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC, box=box).save(payload, "JPEG", quality=QUALITY)
    return payload.getvalue()


def texts() -> list[str]:
    """Return the paragraphs of the descriptions of scikit-learn's data sets: from a few words to a few hundred."""
    paragraphs = []
    for file in files("sklearn.datasets.descr").iterdir():
        if file.name.endswith(".rst"):
            blocks = [block.split() for block in re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))]
            paragraphs += [" ".join(words) for words in blocks if len(words) > 3]
    return paragraphs
