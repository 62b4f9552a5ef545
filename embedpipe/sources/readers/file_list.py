"""A single file, or a file that lists others."""

from __future__ import annotations

import io

from embedpipe.errors import SourceError
from embedpipe.sources.file_types import read_payload
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import join, local_uri, printable, read_bytes, size_and_time, split_location
from embedpipe.sources.options import Modality


def list_single_file(location: str, modality: Modality) -> Listing:
    """List one image or text file, whose id is its name."""
    uri = join(*split_location(location)) if "://" in location else local_uri(location)
    builder = ListingBuilder()
    builder.add(printable(split_location(location)[1]), uri, *size_and_time(uri))
    return Listing(builder.finish(), printable(location), lambda row: read_payload(uri, modality))


def list_file_list(location: str, modality: Modality) -> Listing:
    """List the files that a file names, one path or URL a line.

    Paths are relative to the folder that the list is in; ids are the lines as written; blank lines are ignored.

    Raises
    ------
    SourceError
        The file cannot be read or names nothing.
    """
    folder = split_location(location)[0]
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
        raise SourceError(f"{location!r} names no {modality}s: write one path or URL a line")
    uris = table.column("uri")
    return Listing(table, printable(location), lambda row: read_payload(uris[row].as_py(), modality))
