"""Listings of a single file, and of a file that names other files."""

from __future__ import annotations

import io

from embedpipe.errors import SourceError
from embedpipe.sources.access.roots import access_of, refuse_foreign
from embedpipe.sources.encodings import has_mark, to_utf8
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import join, local_uri, printable, read_bytes, size_and_time, split_location
from embedpipe.sources.options import WITH_ARTICLE, Modality, SourceOptions
from embedpipe.sources.reading import Files


def list_single_file(location: str, modality: Modality) -> Listing:
    """List one image or text file, with its name as id."""
    uri = join(*split_location(location)) if "://" in location else local_uri(location)
    builder = ListingBuilder()
    builder.add(printable(split_location(location)[1]), uri, *size_and_time(uri))
    table = builder.finish()
    return Listing(table, printable(location), Files(table.column("uri"), modality))


def list_file_list(location: str, options: SourceOptions, modality: Modality) -> Listing:
    """List the files named by a file, with one path or URL per line.

    Paths are relative to the folder of the list. The lines are the ids. Blank lines are ignored.

    Raises
    ------
    SourceError
        The file cannot be read or names no file.
    """
    folder = split_location(location)[0]
    access = access_of(folder, options.allow_root)
    builder = ListingBuilder()
    try:
        data = read_bytes(location)
    except Exception as error:
        raise SourceError(str(error)) from error
    if has_mark(data):  # also UTF-16, as PowerShell writes it
        try:
            data = to_utf8(data)[0]
        except UnicodeError as error:
            raise SourceError(f"cannot read the list {location!r}: {error}") from error
    if b"\0" in data:
        raise SourceError(f"a list of files must be a text, and {location!r} holds NUL characters: give a text file")
    with io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            name = line.rstrip("\n")
            if name.strip():
                uri = join(folder, name)
                builder.add(printable(name), uri, *size_and_time(uri))
    table = builder.finish()
    if not len(table):
        raise SourceError(
            f"a file list must have one path or URL of {WITH_ARTICLE[modality]} per line, and {location!r} has none"
        )
    uris = table.column("uri")
    refuse_foreign(uris, access, location)
    return Listing(table, printable(location), Files(uris, modality, access))
