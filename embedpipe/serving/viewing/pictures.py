"""Pictures and texts of items: read below the item's source, decoded, and sent as new files, never as they are."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.cache import name_of, open_cache
from embedpipe.decoding import Preprocessing, decode_image, decode_pixels, decode_text, payload_hash
from embedpipe.decoding.image import readable_formats, silence_pillow
from embedpipe.decoding.memory import room
from embedpipe.errors import DecodeError, EmbedpipeError, ReadError
from embedpipe.serving.viewing.collection import Collection
from embedpipe.sources.access.roots import access_of
from embedpipe.sources.boxes import Crop
from embedpipe.sources.listing import ROOT
from embedpipe.sources.locations import local_path, split_location
from embedpipe.sources.opening import file_of, read_uri

#: The part of the cache folder that holds thumbnails.
PART = "views"
#: Longest side of a thumbnail, and of a picture that is shown alone, in pixels; JPEG quality.
THUMBNAIL, LARGE, QUALITY = 320, 1280, 82
#: Colour of the frame around a part of a picture.
FRAME = "#d62728"
#: Most pixels of an uploaded picture.
MOST_PIXELS = 60_000_000


class Pictures:
    """The pictures of a collection's items, with a cache of thumbnails by content.

    Parameters
    ----------
    collection : Collection
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._cache = store_cache(collection)

    def thumbnail(self, row: int) -> bytes:
        """Return a small JPEG of an item. Raises ItemError if it cannot be read or is no picture."""
        content = str(self._collection.table.column("content_hash")[row].as_py())
        file = None
        if self._cache is not None and content.isalnum():
            # By this name, `forget` finds it also where the store itself is gone.
            file = self._cache / f"thumbnails-{THUMBNAIL}" / content[:2] / content
            with suppress(OSError):
                return file.read_bytes()
        picture = shrink(self.read(row), THUMBNAIL)
        if file is not None:
            with suppress(OSError):  # a full disk costs time, and no picture
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with whole_file(file) as part:
                    part.write_bytes(picture)
        return picture

    def large(self, row: int) -> bytes:
        """Return a JPEG of an item as large as a screen, a part in its picture. Raises as `thumbnail` does."""
        payload = self.read(row)
        return _in_picture(payload) if isinstance(payload, Crop) else shrink(payload, LARGE)

    def text(self, row: int) -> str:
        """Return the text of an item: the whole where its source can be read, else the beginning that is stored."""
        with suppress(EmbedpipeError):
            return decode_text(self.read(row)).text
        stored = self._collection.table
        return str(stored.column("text")[row].as_py() or "") if "text" in stored.column_names else ""

    def read(self, row: int) -> Any:
        """Return the payload of an item, which must lie below the source that it was embedded from, and be the same.

        Raises ReadError, also for a file that has changed since, as its vector is not that of the new content.
        """
        table, modality = self._collection.table, self._collection.store.spec.modality
        uri, root, content = (table.column(name)[row].as_py() for name in ("uri", "source_root", "content_hash"))
        if uri is None:
            raise ReadError("the store has no location of this item")
        check_below(uri, root)
        payload = read_uri(uri, modality)
        if payload_hash(payload) != content:
            raise ReadError("the file has changed since it was embedded: embed again")
        return payload


def check_below(uri: str, root: str) -> None:
    """Raise ReadError unless an item lies below the root of its source, or where the user allows reading.

    Links are followed where they are. A source in memory has named its files itself.
    """
    if root == ROOT:
        return
    location = file_of(uri)
    for scheme in ("tar://", "parquet://", "table://"):
        if location.startswith(scheme):
            location = location.rpartition("::")[2]
    path = local_path(root)
    folder = root if path is None or Path(path).is_dir() else split_location(root)[0]
    if path is None and "." in split_location(root)[1]:  # a table or shard of an object store
        folder = split_location(root)[0]
    access_of(folder).check(os.path.normpath(location) if local_path(location) is not None else location)


def shrink(payload: Any, side: int) -> bytes:
    """Return a JPEG of at most ``side`` pixels. Raises DecodeError."""
    with room(payload):
        picture = decode_pixels(payload, Preprocessing(resize=(side,), crop=(side, side), decode="scaled"))
        pixels = np.ascontiguousarray(picture.upright(picture.pixels))
        image = Image.fromarray(pixels)
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
        if picture.profile is not None:
            image = Image.fromarray(picture.profile.pixels_to_srgb(np.array(image)))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _in_picture(crop: Crop) -> bytes:
    """Return a JPEG of a picture with a frame around a part of it. Raises DecodeError."""
    with room(crop):
        image = decode_image(crop.picture)
        left, top, right, bottom = crop.box.place(*image.size)
        scale = min(1.0, LARGE / max(image.size))
        image.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    draw = ImageDraw.Draw(image)
    for colour, grow in (("white", 3), (FRAME, 1)):
        corners = (left * scale - grow, top * scale - grow, right * scale + grow, bottom * scale + grow)
        draw.rectangle(corners, outline=colour, width=3)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def check_upload(data: bytes) -> None:
    """Raise DecodeError if uploaded bytes are no picture, or one that claims more than `MOST_PIXELS`."""
    silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError as error:
        raise DecodeError(f"an uploaded picture must have at most {MOST_PIXELS:,} pixels: {error}") from error
    except Exception as error:  # Pillow raises many types
        raise DecodeError(
            "the upload must be a picture, such as JPEG, PNG or WebP, and cannot be read as one"
        ) from error
    if pixels > MOST_PIXELS:
        raise DecodeError(f"an uploaded picture must have at most {MOST_PIXELS:,} pixels, got {pixels:,}")


def store_cache(collection: Collection) -> Path | None:
    """Return the folder of the cache for what is computed of a store; None where nothing can be cached."""
    folder = open_cache(PART)
    if folder is None:
        return None
    folder /= name_of(collection.store.table_id)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None
    return folder
