"""Pages of TIFF files: where they are, and a listing in which each is an item."""

from __future__ import annotations

import dataclasses
import re
import struct
import threading
from array import array
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from embedpipe.errors import DecodeError, ReadError
from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.listing import Listing
from embedpipe.sources.readers.tar_shards import split_member_uri
from embedpipe.sources.reading import Reader, RowNumbers

#: Most pages of a file that are listed.
MOST_PAGES = 100_000

#: Files whose bytes stay in memory, as their pages are read one after another.
_KEPT_FILES = 4

_SUBFILE = 254
_PAGE = re.compile(r"(.+)#page=([1-9][0-9]{0,5})", re.DOTALL)


def is_tiff(data: Any) -> bool:
    """Return whether a payload is a file that begins as TIFF or BigTIFF."""
    return isinstance(data, bytes) and data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class _Layout(NamedTuple):
    """Byte order, and the formats of the numbers in a file."""

    order: str
    big: bool

    @classmethod
    def of(cls, data: bytes) -> _Layout:
        return cls("<" if data[:2] == b"II" else ">", 43 in data[2:4])

    def number(self, data: bytes, place: int) -> int:
        """Return the offset at a place."""
        return int(struct.unpack_from(self.order + ("Q" if self.big else "I"), data, place)[0])

    def directory(self, data: bytes, place: int) -> tuple[int, int, int]:
        """Return the place of the first entry of a directory, their number, and the place of the next offset."""
        (count,) = struct.unpack_from(self.order + ("Q" if self.big else "H"), data, place)
        first = place + (8 if self.big else 2)
        return first, count, first + count * (20 if self.big else 12)


def page_places(data: bytes) -> list[int]:
    """Return the places of the directories of all pages. Smaller copies and masks of a page are no pages.

    Raises
    ------
    DecodeError
        There is no directory, their chain leads out of the file, or there are more than `MOST_PAGES`.
    """
    layout = _Layout.of(data)
    places: list[int] = []
    seen: set[int] = set()
    try:
        place = layout.number(data, 8 if layout.big else 4)
        while place and place not in seen:
            seen.add(place)
            if len(seen) > MOST_PAGES:
                raise DecodeError(f"a TIFF must have at most {MOST_PAGES} pages: split it")
            first, count, after = layout.directory(data, place)
            following = layout.number(data, after)
            if not places or not _is_copy(data, layout, first, count):
                places.append(place)
            place = following
    except (struct.error, OverflowError) as error:  # places of BigTIFF have 64 bits
        raise DecodeError(f"truncated or damaged TIFF: page {len(places) + 1} is missing") from error
    if not places:
        raise DecodeError("truncated or damaged TIFF: page 1 is missing")
    return places


def only_page(data: bytes, place: int) -> bytes:
    """Return the file with one page: its directory is the first and the last."""
    layout = _Layout.of(data)
    _, _, after = layout.directory(data, place)
    number = layout.order + ("Q" if layout.big else "I")
    changed = bytearray(data)
    struct.pack_into(number, changed, 8 if layout.big else 4, place)
    struct.pack_into(number, changed, after, 0)
    return bytes(changed)


def _is_copy(data: bytes, layout: _Layout, first: int, count: int) -> bool:
    """Return whether a directory declares a smaller copy or a mask of another page."""
    step = 20 if layout.big else 12
    for entry in range(first, first + min(count, 4096) * step, step):
        tag, kind = struct.unpack_from(layout.order + "HH", data, entry)
        if tag == _SUBFILE:
            at = entry + (12 if layout.big else 8)
            (value,) = struct.unpack_from(layout.order + ("H" if kind == 3 else "I"), data, at)
            return bool(value & 0b101)
        if tag > _SUBFILE:
            break
    return False


def split_page(uri: str) -> tuple[str, int | None]:
    """Return the uri of a file and the number of its page, None for a uri without one."""
    match = _PAGE.fullmatch(uri)
    return (match[1], int(match[2])) if match else (uri, None)


def read_page(data: Any, page: int) -> bytes:
    """Return the file with this page only, counted from 1. Raises ReadError if it has no such page."""
    return _read_page(data, _places(data), page)


def _places(data: Any) -> list[int]:
    """Return the places of pages as `page_places`, none if the file has changed into another kind."""
    try:
        return page_places(data) if is_tiff(data) else []
    except DecodeError:
        return []


def _read_page(data: Any, places: list[int], page: int) -> bytes:
    try:
        return only_page(data, places[page - 1])
    except IndexError as error:
        raise ReadError(f"the file has no page {page}: it has changed") from error


def with_pages(listing: Listing) -> Listing:
    """Return the listing with each page of each TIFF as an item, with the ids ``x.tif#page=1`` and so on.

    Files of one page stay as they are. Those whose pages cannot be found become failures.
    """
    rows, pages, failures = array("q"), array("q"), list(listing.failures)
    uris = listing.table.column("uri")
    for row in range(len(listing)):
        uri = uris[row].as_py()
        try:
            count = len(page_places(data)) if _may_be_tiff(uri) and is_tiff(data := listing.read(row)) else 1
        except Exception as error:  # items of programs raise many types, and one bad file must not stop a run
            failures.append(listing.failure(row, error, "read"))
            continue
        rows.extend([row] * count)
        pages.extend(range(1, count + 1) if count > 1 else [0])
    if len(rows) == len(listing) and not any(pages):
        return listing
    numbers = np.frombuffer(pages, np.int64)
    table = listing.table.take(pa.array(np.frombuffer(rows, np.int64)))
    for name in ("id", "uri"):
        values = [
            value if page == 0 or value is None else f"{value}#page={page}"
            for value, page in zip(table.column(name).to_pylist(), numbers.tolist(), strict=True)
        ]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    read = _Pages(listing.read, np.frombuffer(rows, np.int64), numbers)
    return dataclasses.replace(listing, table=table, read=read, failures=tuple(failures))


def _may_be_tiff(uri: str | None) -> bool:
    """Return whether an item may be a TIFF: by the name of its file, if it has one."""
    if uri is None or uri.startswith(("parquet://", "table://")):
        return True
    name = split_member_uri(uri)[0] if uri.startswith("tar://") else uri
    return suffix_of(name) in (".tif", ".tiff")


class _Pages:
    """Reads pages, and keeps the last files and the places of their pages. Safe to use from several threads.

    Parameters
    ----------
    reader : Reader
        Reads the files.
    files, pages : int64 array (n,)
        Row of the file and number of the page, counted from 1, of each item. Page 0 stands for the whole file.
    """

    def __init__(self, reader: Reader, files: RowNumbers, pages: RowNumbers) -> None:
        self._reader, self._files, self._pages = reader, files, pages
        self._kept: OrderedDict[int, tuple[Any, list[int]]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return _Pages, (self._reader, self._files, self._pages)

    def take(self, rows: RowNumbers) -> Reader:
        """Return the reader of some rows, which reads each file once for its pages."""
        used, files = np.unique(self._files[rows], return_inverse=True)
        return _Pages(self._reader.take(used), files, self._pages[rows])

    def __call__(self, row: int) -> Any:
        """Return the payload of a row. Raises ReadError."""
        file, page = self._files.item(row), self._pages.item(row)
        if page == 0:
            return self._reader(file)
        with self._lock:
            kept = self._kept.get(file)
        if kept is None:
            data = self._reader(file)
            kept = data, _places(data)
            with self._lock:
                self._kept[file] = kept
                while len(self._kept) > _KEPT_FILES:
                    self._kept.popitem(last=False)
        return _read_page(*kept, page)
