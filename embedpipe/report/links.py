"""Links from pages and tables to the files of items."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

from embedpipe.sources.locations import is_url, local_path
from embedpipe.sources.opening import file_of


def link_to(uri: str | None, folder: Path | None = None) -> str:
    """Return the address of an item's file, for a link; ``""`` for what no browser opens.

    Only local files and the web are linked: a store may name anything.

    Parameters
    ----------
    uri : str or None
        As a store holds it.
    folder : pathlib.Path, optional
        Files in this folder are named relative to it, so that both can be moved.
    """
    if uri is None:
        return ""
    file = file_of(uri)
    if is_url(file) and file.partition("://")[0].lower() in ("http", "https"):
        return file
    path = local_path(file)
    if path is None or not Path(path).is_absolute():
        return ""
    if folder is not None and Path(path).is_relative_to(folder):
        return urllib.parse.quote(os.fsencode(Path(path).relative_to(folder).as_posix()))
    return Path(f"/{path.lstrip('/')}").as_uri()  # two slashes would name a server on Windows
