"""Where the cells of a table, the lines of a list and the uris of a store may point."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import ReadError, SourceError
from embedpipe.sources.access.web import SCHEMES, host_of
from embedpipe.sources.locations import absolute, is_url, local_path, read_bytes, split_query

#: Folders and URLs that the user allows for every command, separated by commas.
VARIABLE = "EMBEDPIPE_ALLOW_ROOT"

#: Schemes of object stores, whose servers the user configures, and of this process.
_BUCKETS = ("s3://", "gs://", "gcs://", "abfs://", "abfss://", "memory://")

_UP = re.compile(r"(?:/|%2f)(?:\.|%2e){1,2}(?:/|%2f|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Access:
    """What may be read: everything below one of the ``roots``.

    Parameters
    ----------
    roots : tuple of str
        Absolute folders, URLs, or ``"s3://"`` for a whole scheme, which does not include private web servers.
    advice : str
        End of the message for everything else.
    """

    roots: tuple[str, ...]
    advice: str

    def check(self, location: str) -> None:
        """Raise ReadError if an absolute location is not below a root. Links are followed where they are."""
        if not any(_is_below(location, root) for root in self.roots):
            raise ReadError(f"{location!r} {self.advice}")

    def check_file(self, location: str) -> None:
        """Check a file that is opened and read in parts, which is not done from web servers that are not named."""
        self.check(location)
        if _scheme(location) in SCHEMES and host_of(location) not in self.hosts:
            raise ReadError(f"{location!r} {self.advice}")

    @property
    def hosts(self) -> frozenset[str]:
        """The web servers that the user has named, whose address may be private."""
        return frozenset(host_of(root) for root in self.roots if _scheme(root) in SCHEMES) - {""}


def read_allowed(location: str, access: Access) -> bytes:
    """Return the contents of a file. Raises ReadError if it cannot or must not be read."""
    access.check(location)
    return read_bytes(location, access.hosts)


def refuse_foreign(uris: pa.ChunkedArray, access: Access, name: str) -> None:
    """Raise SourceError if a table or list names files, and none of them may be read. Each of a few fails alone."""
    first = None
    for uri in (uri for chunk in uris.chunks for uri in chunk.to_pylist()):
        if uri is None:
            continue
        try:
            access.check(uri)
        except ReadError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise SourceError(f"none of the files that {name!r} names may be read: {first}") from first


def access_of(folder: str, allowed: Iterable[str] = ()) -> Access:
    """Return what the cells of a table or the lines of a list in ``folder`` may name."""
    advice = (
        f"is outside of {folder!r}, where the table or list is, and nothing else is read: if you trust it, allow a "
        f"folder or URL above it ({option('allow_root', ...)})"
    )
    return Access((folder, *_roots(allowed)), advice)


def access_of_memory(allowed: Iterable[str] = ()) -> Access:
    """Return what paths in memory may name: they come from the program of the user."""
    roots = ("/", *_BUCKETS, *(f"{scheme}://" for scheme in SCHEMES), *_roots(allowed))
    return Access(
        roots,
        f"must be a path, or a URL of an object store or web server, unless allowed ({option('allow_root', ...)})",
    )


def access_of_object(allowed: Iterable[str] = ()) -> Access:
    """Return what a data set in memory may name: others may have written its paths."""
    advice = (
        "is named by the data set, which may name files below the working folder only: if you trust it, allow a folder "
        f"or URL above it ({option('allow_root', ...)})"
    )
    return Access((str(Path.cwd()), *_roots(allowed)), advice)


def access_of_request() -> Access:
    """Return what a request to a service may name."""
    advice = (
        "is named by a request, which may name files below the working folder only: send the bytes of the file, or "
        f"allow a folder or URL above it by the environment variable {VARIABLE}"
    )
    return Access((str(Path.cwd()), *_roots(())), advice)


def access_of_store() -> Access:
    """Return what the uris in a store may name: whoever wrote the store wrote them."""
    advice = (
        "is stored as the place of an item, and is not a path or URL of an object store or public web server: if you "
        f"trust the store, allow a folder or URL above it by the environment variable {VARIABLE}"
    )
    return Access(access_of_memory().roots, advice)


def _roots(allowed: Iterable[str]) -> tuple[str, ...]:
    named = [*allowed, *(part.strip() for part in os.environ.get(VARIABLE, "").split(","))]
    return tuple(root if re.fullmatch(r"[a-z0-9]+://", root) else absolute(root) for root in named if root)


def _scheme(location: str) -> str:
    return location.partition("://")[0].lower() if is_url(location) else ""


def _is_below(location: str, root: str) -> bool:
    path, folder = local_path(location), local_path(root)
    if path is not None or folder is not None:
        if path is None or folder is None:
            return False
        path = os.path.normpath(path)
        return path == folder or path.startswith(folder.rstrip("/") + "/")
    (body, query), (above, expected) = split_query(location), split_query(root)
    if "::" in body or _scheme(body) != _scheme(above) or query != expected:
        return False
    if above.endswith("://"):
        return True
    scheme = len(_scheme(body))
    body, above = body[scheme:], above[scheme:].rstrip("/")
    return body == above or (body.startswith(above + "/") and not _UP.search(body))
