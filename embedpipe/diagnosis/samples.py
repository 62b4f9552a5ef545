"""Photographs and texts that are on every machine, to measure with where the user names no source: scikit-learn's."""

from __future__ import annotations

import io
import re
from importlib.resources import files

from PIL import Image

#: Width and height of the photographs made of each of the two: what cameras' pictures are often reduced to.
SIZES = ((500, 375), (375, 500), (640, 427), (427, 427), (640, 480), (1024, 683))
QUALITY = 90


def photographs() -> list[bytes]:
    """Return JPEG files of several sizes and shapes."""
    made = []
    for file in files("sklearn.datasets.images").iterdir():
        if file.name.endswith(".jpg"):
            with Image.open(io.BytesIO(file.read_bytes())) as picture:
                made += [_jpeg(picture.convert("RGB"), size) for size in SIZES]
    return made


def _jpeg(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """Return the middle of a picture that has the shape of ``size``, at that size, as a JPEG file."""
    width, height = picture.size
    scale = min(width / size[0], height / size[1])
    left, top = (width - scale * size[0]) / 2, (height - scale * size[1]) / 2
    box = (left, top, left + scale * size[0], top + scale * size[1])
    payload = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC, box=box).save(payload, "JPEG", quality=QUALITY)
    return payload.getvalue()


def texts() -> list[str]:
    """Return the paragraphs of the descriptions of scikit-learn's data sets: from a few words to a few hundred."""
    made = []
    for file in files("sklearn.datasets.descr").iterdir():
        if file.name.endswith(".rst"):
            paragraphs = re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))
            made += [" ".join(paragraph.split()) for paragraph in paragraphs if len(paragraph.split()) > 3]
    return made
