"""A single image file, or a text file that lists images."""

from __future__ import annotations

import io

from embedpipe.errors import SourceError
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import join, local_uri, printable, read_bytes, size_and_time, split


def list_image(location: str) -> Listing:
    """List one image file, whose id is its name."""
    uri = join(*split(location)) if "://" in location else local_uri(location)
    builder = ListingBuilder()
    builder.add(printable(split(location)[1]), uri, *size_and_time(uri))
    return Listing(builder.finish(), printable(location), lambda row: read_bytes(uri))


def list_file_list(location: str) -> Listing:
    """List the images that a text file names, one path or URL a line.

    Paths are relative to the text file's folder; ids are the lines as written; blank lines are ignored.

    Raises
    ------
    SourceError
        The file cannot be read or names nothing.
    """
    folder = split(location)[0]
    builder = ListingBuilder()
    try:
        data = read_bytes(location)
    except Exception as error:
        raise SourceError(str(error)) from error
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="surrogateescape") as lines:
        for line in lines:
            name = line.rstrip("\n")
            if name.strip():
                uri = join(folder, name)
                builder.add(printable(name), uri, *size_and_time(uri))
    table = builder.finish()
    if not len(table):
        raise SourceError(f"{location!r} names no images: write one path or URL a line")
    uris = table.column("uri")
    return Listing(table, printable(location), lambda row: read_bytes(uris[row].as_py()))
