"""Listing of WebDataset shards: tar files in which the files of a sample share a name up to the first dot."""

from __future__ import annotations

import fnmatch
import functools
import io
import json
import posixpath
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from embedpipe.errors import Failure, ReadError, SourceError
from embedpipe.sources.column_roles import is_reserved
from embedpipe.sources.file_types import is_image_name, suffix_of
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import (
    absolute,
    exists,
    filesystem,
    is_url,
    join,
    modified,
    open_file,
    printable,
    read_range,
    split_location,
)

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_WILDCARD = re.compile(r"[*?\[]")
_URI = re.compile(r"tar://(.*)::(.+)", re.DOTALL)
_READ_AHEAD = 1 << 18


def list_shards(pattern: str) -> Listing:
    """List the images of tar shards without reading them.

    Ids are ``<shard>/<sample>``. A ``.cls`` file is the label. The plain values of a ``.json`` object and a ``.txt``
    file (as ``text``) are metadata. ``label`` and ``split`` of the JSON are used if there are no others; other names
    that are reserved for the store get the prefix ``json_``. A truncated shard gives the samples before its end, and
    a failure.

    Parameters
    ----------
    pattern : str
        Path or URL of a ``.tar`` file, or a pattern with ``*``, ``{000..012}`` or ``{a,b}``.

    Raises
    ------
    SourceError
        No shard matches, or the shards hold no image.
    """
    root = absolute(pattern)
    builder, offsets, failures, skipped = ListingBuilder(), array("q"), list[Failure](), Counter[str]()
    shards = expand(root)
    names: dict[str, str] = {}  # column names of Delta are not case-sensitive
    for shard in shards:
        before = len(offsets)
        try:
            time = modified(shard)
            stem = posixpath.splitext(printable(split_location(shard)[1]))[0]
            for sample in _samples(shard, skipped):
                image = sample.image
                builder.add(
                    f"{stem}/{sample.key}",
                    f"tar://{printable(image.name)}::{shard}",
                    image.size,
                    time,
                    sample.label,
                    sample.split,
                    {names.setdefault(name.lower(), name): value for name, value in sample.metadata.items()},
                )
                offsets.append(image.offset_data)
        except Exception as error:
            count = len(offsets) - before
            problem = SourceError(f"truncated or unreadable shard, with {count} images before that: {error}")
            failures.append(
                Failure(printable(split_location(shard)[1]), shard, "list", type(error).__name__, str(problem))
            )
    table = builder.finish()
    if not len(table) and not failures:
        raise SourceError(f"no images in the {len(shards)} shards of {pattern!r}: found {dict(skipped) or 'nothing'}")
    uris, sizes = table.column("uri"), table.column("source_size")

    def read(row: int) -> bytes:
        return read_range(_parse(uris[row].as_py())[1], offsets[row], sizes[row].as_py())

    return Listing(table, root, read, tuple(failures), dict(skipped))


def read_member_uri(uri: str) -> bytes:
    """Read ``tar://<member>::<shard>``. Raises ReadError."""
    member, shard = _parse(uri)
    try:
        index = _index(shard, modified(shard))
    except Exception as error:
        raise ReadError(f"cannot read {shard}: {error}") from error
    if member not in index:
        raise ReadError(f"{shard} has no file {member!r}: the shard has changed")
    return read_range(shard, *index[member])


def expand(pattern: str) -> list[str]:
    """Return the shards of a pattern, in the order of the braces and sorted within a wildcard.

    Raises SourceError if no shard exists.
    """
    named = [pattern] if _is_file(pattern) else [shard for name in _braces(pattern) for shard in _matches(name)]
    if not any(exists(shard) for shard in named):
        raise SourceError(
            f"no shard matches {pattern!r}: give .tar files such as 'DIR/*.tar' or 'DIR/x-{{000..012}}.tar'"
        )
    return list(dict.fromkeys(named))


class _Sample:
    """The files of one sample."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.images: list[tarfile.TarInfo] = []
        self.label: str | None = None
        self.split: str | None = None
        self.metadata: dict[str, Any] = {}

    @property
    def image(self) -> tarfile.TarInfo:
        return self.images[0]

    def add_json(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if value is not None and not isinstance(value, str | int | float):
                continue
            if name in ("label", "split") and value is not None:
                setattr(self, name, getattr(self, name) or str(value))
            elif is_reserved(name):
                self.metadata[f"json_{name}"] = value
            else:
                self.metadata.setdefault(name, value)


def _samples(shard: str, skipped: Counter[str]) -> Iterator[_Sample]:
    """Yield the samples of a shard that have an image, then raise the error of the shard, if any."""
    samples: dict[str, _Sample] = {}
    problem: Exception | None = None
    with io.BufferedReader(open_file(shard), _READ_AHEAD) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    _take(member, tar, samples, skipped)
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("the end of the archive is missing")
        except Exception as error:
            problem = error
    for sample in samples.values():
        if sample.images:
            yield sample
        else:
            skipped["sample without an image"] += 1
    if problem:
        raise problem


def _take(member: tarfile.TarInfo, tar: tarfile.TarFile, samples: dict[str, _Sample], skipped: Counter[str]) -> None:
    if not member.isreg():
        return
    folder, name = posixpath.split(printable(member.name))
    stem, _, ending = name.partition(".")
    suffix = suffix_of(name)
    sample = samples.setdefault(posixpath.join(folder, stem), _Sample(posixpath.join(folder, stem)))
    if is_image_name(name):
        # Of x.jpg and x.mask.png, the image is the one with a single suffix.
        sample.images.insert(0 if "." not in ending and sample.images else len(sample.images), member)
    elif suffix in (".cls", ".txt", ".json"):
        text = _read_text(tar, member)
        if suffix == ".cls":
            sample.label = text.strip()
        elif suffix == ".txt":
            sample.metadata["text"] = text.strip()
        else:
            try:
                sample.add_json(dict(json.loads(text)))
            except (ValueError, TypeError, RecursionError):
                skipped["unreadable .json"] += 1
    else:
        skipped[suffix or "no suffix"] += 1


def _read_text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = tar.extractfile(member)
    return file.read().decode("utf-8", "backslashreplace") if file else ""


@functools.lru_cache(maxsize=16)
def _index(shard: str, time: int | None) -> dict[str, tuple[int, int]]:
    """Return offset and size of each file of a shard. A new ``time`` reads a changed shard again."""
    places: dict[str, tuple[int, int]] = {}
    with io.BufferedReader(open_file(shard), _READ_AHEAD) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        try:
            for member in tar:
                places[printable(member.name)] = (member.offset_data, member.size)
        except tarfile.ReadError:
            pass  # the files before the end of a truncated shard can be read
    return places


def _parse(uri: str) -> tuple[str, str]:
    match = _URI.fullmatch(uri)
    if not match:
        raise ReadError(f"a uri of a file in a shard must be tar://<member>::<shard>, got {uri!r}")
    return match.group(1), match.group(2)


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
        return sorted(str(path) for path in Path("/").glob(pattern.lstrip("/")))
    folder, name = split_location(pattern)
    if _WILDCARD.search(folder.partition("?")[0]):
        raise SourceError(f"in a URL only the file name may have wildcards, got {pattern!r}")
    remote, path = filesystem(folder)
    names = (info.base_name for info in remote.get_file_info(pafs.FileSelector(path)) if info.is_file)
    return [join(folder, shard) for shard in sorted(names) if fnmatch.fnmatchcase(shard, name)]
