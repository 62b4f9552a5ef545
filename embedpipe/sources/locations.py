"""Local paths and URLs, read through the operating system, pyarrow or fsspec."""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
import stat
import urllib.parse
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs as pafs

from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.masking import masked
from embedpipe.errors import ReadError, SourceError, UsageError
from embedpipe.sources.access.outage import is_outage
from embedpipe.sources.access.s3 import S3Server, s3_server
from embedpipe.sources.access.web import SCHEMES, host_of, read_url

#: Schemes read by pyarrow, with options in the query of the URL: ``?endpoint_override=...&scheme=http``.
PYARROW_SCHEMES = ("s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss")

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_WILDCARD = re.compile(r"[*?\[]")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://", re.ASCII)
_QUERY = re.compile(r"\?(?:[a-z_]+=[^?/&]*)(?:&[a-z_]+=[^?/&]*)*$", re.ASCII)
#: Halves of surrogate pairs that do not stand for a byte of a file name.
_HALF = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")


def is_url(text: str) -> bool:
    """Return whether ``text`` is a URL and not a local path."""
    return "://" in text and _URL.match(text) is not None  # the first test is fast, and mostly enough


def local_path(location: str) -> str | None:
    """Return the path of a local path or ``file://`` URL, and None for other URLs."""
    if not is_url(location):
        return location
    scheme, _, rest = location.partition("://")
    if scheme.lower() != "file":
        return None
    return os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(rest.removeprefix("localhost"))))


def printable(text: str) -> str:
    """Return a file name as valid Unicode, with backslash escapes for bytes that are not UTF-8."""
    if text.isascii():
        return text
    text = _HALF.sub(lambda half: repr(half[0])[1:-1], text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def local_uri(path: str) -> str:
    """Return an absolute path unchanged, or as a percent-encoded ``file://`` URL if it is not valid UTF-8."""
    return path if printable(path) == path else Path(path).as_uri()


def absolute(location: str) -> str:
    """Return a URL without trailing slash, or an absolute local path."""
    path = local_path(location)
    if path is not None:
        # After a symbolic link, ".." is the parent of the target of the link.
        return os.path.realpath(path) if ".." in Path(path).parts else os.path.normpath(Path(path).absolute())
    body, query = split_query(location)
    return body.rstrip("/") + query


def join(folder: str, name: str) -> str:
    """Return the URI of ``name``, relative to an absolute ``folder`` unless it is absolute or a URL."""
    if is_url(name):
        path = local_path(name)
        return printable(name) if path is None else local_uri(absolute(path))
    if is_url(folder):
        body, query = split_query(folder)
        return f"{body.rstrip('/')}/{name.removeprefix('./')}{query}"
    return local_uri(os.path.normpath(name if name.startswith("/") else f"{folder}/{name}"))


def split_location(location: str) -> tuple[str, str]:
    """Return the folder and the file name of an absolute location."""
    body, query = split_query(location)
    folder, _, name = body.rpartition("/")
    return (folder or "/") + query, name


def require_no_secret(location: str, name: str) -> str:
    """Return a location; raise UsageError if it holds a password or key, which would be stored with every item.

    ``name`` says what the location is.
    """
    if masked(location) != location:
        is_web = location.partition("://")[0].lower() in SCHEMES
        remedy = (
            "download it, and give the file" if is_web else "set them in the environment (AWS_SECRET_ACCESS_KEY...)"
        )
        raise UsageError(f"{name} must not hold a password or key, got {masked(location)!r}: {remedy}")
    return location


def filesystem(location: str) -> tuple[pafs.FileSystem, str]:
    """Return the filesystem of a local path or URL, and the path within it.

    Filesystems are cached per scheme, bucket and query. The server of S3 comes from ``AWS_ENDPOINT_URL`` in the
    environment or ``?endpoint_override=...&scheme=http`` in the URL.

    Raises
    ------
    SourceError
        No installed filesystem knows the scheme, or the connection fails.
    """
    path = local_path(location)
    if path is not None:
        return pafs.LocalFileSystem(), absolute(path)
    scheme = location.partition("://")[0].lower()
    try:
        if "::" in location:
            raise ValueError("a URL must not be chained (::)")
        if scheme not in PYARROW_SCHEMES:
            remote, inner = fsspec.core.url_to_fs(location)
            return pafs.PyFileSystem(pafs.FSSpecHandler(remote)), inner
        body, query = split_query(location)
        bucket, _, inner = body.partition("://")[2].partition("/")
        known, base = _pyarrow_filesystem(scheme, bucket, query, s3_server() if scheme == "s3" else None)
        return known, f"{base.rstrip('/')}/{inner}".rstrip("/")
    except Exception as error:
        remedy = (
            "check its name, and ~/.aws"
            if "profile" in str(error).lower()
            else "check the URL, or install its filesystem"
        )
        raise SourceError(f"cannot open {location!r}: {error}; {remedy}") from error


def open_file(location: str) -> Any:
    """Open a local or remote file as a seekable pyarrow file."""
    remote, path = filesystem(location)
    return remote.open_input_file(path)


def read_bytes(location: str, private: Collection[str] | None = None) -> bytes:
    """Return the contents of a file. Raises ReadError with the reason if it cannot be read.

    ``private`` are the web servers whose address may be private (`read_url`). Default: that of ``location``.
    """
    path = local_path(location)
    if path is None and location.partition("://")[0].lower() in SCHEMES:
        return read_url(location, {host_of(location)} if private is None else private)
    try:
        if path is not None:
            return read_regular(path)
        remote, inner = filesystem(location)
        with remote.open_input_stream(inner) as stream:
            return bytes(stream.read())
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(f"cannot read {printable(location)}: {_reason(error)}") from error


def read_range(location: str, offset: int, size: int) -> bytes:
    """Return ``size`` bytes from ``offset``. Raises ReadError, also for a file that is too short."""
    try:
        with open_file(location) as file:
            data = bytes(file.read_at(size, offset))
    except Exception as error:
        raise ReadError(f"cannot read {location}: {_reason(error)}") from error
    if len(data) < size:
        raise ReadError(f"{location} is truncated: {len(data)} of {size} bytes at offset {offset}")
    return data


def size_and_time(location: str) -> tuple[int | None, int | None]:
    """Return size in bytes and modification time (ns since the epoch) of a local file, else None for both."""
    path = local_path(location)
    if path is None:
        return None, None
    try:
        info = os.stat(path)  # noqa: PTH116  a Path takes longer to make than this
    except (OSError, ValueError):
        return None, None
    return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else (None, None)


def modified(location: str) -> int | None:
    """Return the modification time of a local or remote file in ns since the epoch; None if unknown."""
    if local_path(location) is not None:
        return size_and_time(location)[1]
    remote, path = filesystem(location)
    time: int | None = remote.get_file_info(path).mtime_ns
    return time


def exists(location: str) -> bool:
    """Return whether there is a file or folder. True if that is not known.

    Raises SourceError if the server does not answer: each further request would wait for it too.
    """
    path = local_path(location)
    if path is not None:
        return os.path.exists(path)  # noqa: PTH110  pathlib raises for a name that is too long
    try:
        remote, inner = filesystem(location)
        return bool(remote.get_file_info(inner).type != pafs.FileType.NotFound)
    except Exception as error:
        if is_outage(error):
            raise SourceError(f"cannot look for {location!r}: {error}") from error
        return True


def expand(pattern: str) -> list[str]:
    """Return the shards of a pattern, in the order of the braces and sorted within a wildcard.

    Raises SourceError if no shard exists.
    """
    named = [pattern] if _is_file(pattern) else [shard for name in _braces(pattern) for shard in _matches(name)]
    if not any(exists(shard) for shard in named):
        raise SourceError(
            f"no shard matches {pattern!r}: give files such as 'DIR/*.tar', 'DIR/x-{{000..012}}.tar' or 'DIR/*.parquet'"
        )
    return list(dict.fromkeys(named))


@functools.lru_cache(maxsize=64)
def _pyarrow_filesystem(scheme: str, bucket: str, query: str, server: S3Server | None) -> tuple[pafs.FileSystem, str]:
    known: tuple[pafs.FileSystem, str]
    if server is not None and "endpoint_override=" not in query:
        kind, _, host = server.url.partition("://")
        options = {"endpoint_override": host, "scheme": kind}
        options |= {} if "region=" in query else {"region": server.region}
        query += ("&" if query else "?") + urllib.parse.urlencode(options)
    known = pafs.FileSystem.from_uri(f"{scheme}://{bucket}{query}")
    return known


def split_query(location: str) -> tuple[str, str]:
    """Split off the options of pyarrow. In other URLs, ``?`` belongs to the name."""
    scheme = location.partition("://")[0].lower()
    match = _QUERY.search(location) if scheme in PYARROW_SCHEMES else None
    return (location[: match.start()], match.group()) if match else (location, "")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file (it may have been moved or deleted)"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _is_file(pattern: str) -> bool:
    return not is_url(pattern) and Path(pattern).exists()


def _braces(pattern: str) -> list[str]:
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        width = len(first)
        options = [f"{i:0{width}d}" for i in range(int(first), int(last) + 1)]
    else:
        options = words.split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for option in options for name in _braces(before + option + after)]


def _matches(pattern: str) -> list[str]:
    if not _WILDCARD.search(pattern.partition("?")[0] if is_url(pattern) else pattern):
        return [pattern]
    if not is_url(pattern):
        # `Path.glob` of Python 3.11 fails where another process deletes a folder; `glob` follows links below **.
        is_deep = "**" in pattern
        found = Path("/").glob(pattern.lstrip("/")) if is_deep else glob.iglob(pattern, include_hidden=True)  # noqa: PTH207
        return sorted(map(str, found))
    folder, name = split_location(pattern)
    if _WILDCARD.search(folder.partition("?")[0]):
        raise SourceError(f"in a URL only the file name may have wildcards, got {pattern!r}")
    remote, path = filesystem(folder)
    names = (info.base_name for info in remote.get_file_info(pafs.FileSelector(path)) if info.is_file)
    return [join(folder, shard) for shard in sorted(names) if fnmatch.fnmatchcase(shard, name)]
