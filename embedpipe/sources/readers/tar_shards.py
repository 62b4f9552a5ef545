"""Listing of WebDataset shards: tar files in which the files of a sample share a name up to the first dot."""

from __future__ import annotations

import functools
import io
import posixpath
import re
import tarfile
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import Failure, ReadError, SourceError
from embedpipe.sources.access.outage import is_outage
from embedpipe.sources.column_roles import is_reserved
from embedpipe.sources.file_types import compression, is_image_name, suffix_of
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import (
    absolute,
    expand,
    modified,
    open_file,
    printable,
    read_range,
    split_location,
)
from embedpipe.sources.readers.tar_members import Members

#: The shard is an absolute path or a URL, so a "::" in a name is not taken for the one between member and shard.
_URI = re.compile(r"tar://(.*)::((?:/|[A-Za-z][A-Za-z0-9+.-]+://).*)", re.DOTALL)
_READ_AHEAD = 1 << 18

#: A name up to its first dot, and parts of digits such as ``.001`` in ``scan.001.jpg``.
_KEY = re.compile(r"[^.]*(?:\.[0-9]+(?=\.))*")

#: Largest sidecar file in bytes that is read.
_LARGEST_SIDECAR = 1 << 24

#: Types of extended headers, the largest that is read in bytes, and what is slow to parse.
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_LARGEST_HEADER = 1 << 22
_OCTAL = re.compile(rb" *([0-7]{1,11})[ \0]")
_MANY_DIGITS = re.compile(rb"[0-9]{101}")


def list_shards(pattern: str) -> Listing:
    """List the images of tar shards without reading them.

    Ids are ``<shard>/<sample>``, where the sample is the name up to its first dot; parts of digits belong to it
    (``scan.001.jpg``). A ``.cls`` file is the label. The plain values of a ``.json`` object and a ``.txt``
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
    builder, failures, skipped = ListingBuilder(), list[Failure](), Counter[str]()
    numbers, offsets = array("i"), array("q")
    shards = expand(root)
    if "::/" in root:
        raise SourceError(f"the path of a shard must not hold '::/', got {root!r}: rename the folder")
    names: dict[str, str] = {}  # column names of Delta are not case-sensitive
    for number, shard in enumerate(shards):
        before = len(offsets)
        refused: list[str] = []
        stem = posixpath.splitext(printable(split_location(shard)[1]))[0]
        try:
            time = modified(shard)
            for key, image, sidecar in _samples(shard, skipped, refused):
                builder.add(
                    f"{stem}/{key}",
                    f"tar://{printable(image.name)}::{shard}",
                    image.size,
                    time,
                    sidecar.label,
                    sidecar.split,
                    {names.setdefault(name.lower(), name): value for name, value in sidecar.metadata.items()},
                )
                numbers.append(number)
                offsets.append(image.offset_data)
        except Exception as error:
            if is_outage(error):
                raise SourceError(f"cannot read the shard {shard!r}: {error}") from error
            count = len(offsets) - before
            problem = _unreadable(shard, count, error)
            failures.append(
                Failure(printable(split_location(shard)[1]), shard, "list", type(error).__name__, str(problem))
            )
        for name in refused:
            problem = SourceError("a sparse file, which cannot be read: pack the shard again by tar without -S")
            failures.append(Failure.of(f"{stem}/{name}", f"tar://{name}::{shard}", problem, "read"))
    table = builder.finish()
    if not len(table) and not failures:
        raise SourceError(f"no images in the {len(shards)} shards of {pattern!r}: found {dict(skipped) or 'nothing'}")
    places = np.frombuffer(numbers, np.int32), np.frombuffer(offsets, np.int64)
    read = Members(shards, *places, table.column("source_size"))
    return Listing(table, printable(root), read, tuple(failures), dict(skipped))


def read_member(member: str, shard: str) -> bytes:
    """Read a file of a shard, as `split_member_uri` returns them. Raises ReadError."""
    try:
        index = _index(shard, modified(shard))
    except Exception as error:
        raise ReadError(f"cannot read {shard}: {error}") from error
    if member not in index:
        raise ReadError(f"{shard} has no file {member!r}: the shard has changed")
    return read_range(shard, *index[member])


def split_member_uri(uri: str) -> tuple[str, str]:
    """Return member and shard of ``tar://<member>::<shard>``. Raises ReadError."""
    match = _URI.fullmatch(uri)
    if not match:
        raise ReadError(f"a uri of a file in a shard must be tar://<member>::<shard>, got {uri!r}")
    return match.group(1), match.group(2)


class _Member(tarfile.TarInfo):
    """A member whose headers are checked before they are parsed, which takes quadratic time for digits."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """Read the next header. Raises ReadError for headers that no program writes."""
        file: Any = tar.fileobj
        place = file.tell()
        header = file.read(tarfile.BLOCKSIZE)
        if header[156:157] in _EXTENDED:
            octal = _OCTAL.match(header, 124)
            size = int(octal[1], 8) if octal else _LARGEST_HEADER + 1
            if size > _LARGEST_HEADER or _MANY_DIGITS.search(file.read(size)):
                raise tarfile.ReadError(
                    f"an extended header must have at most {_LARGEST_HEADER} bytes and no number of over 100 digits"
                )
        file.seek(place)
        member = super().fromtarfile(tar)
        if member.size < 0:
            raise tarfile.ReadError(f"a member must have a size >= 0, got {member.size}")
        return member


def _members(shard: str) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Yield the members of a shard, hard links as the files that they name, then raise its error, if any."""
    files: dict[str, tarfile.TarInfo] = {}
    with (
        io.BufferedReader(open_file(shard), _READ_AHEAD) as file,
        tarfile.open(fileobj=file, mode="r:", tarinfo=_Member) as tar,
    ):
        for member in tar:
            if member.islnk() and (target := files.get(member.linkname)) is not None:
                member.type, member.size, member.offset_data = target.type, target.size, target.offset_data
                member.sparse = target.sparse
            elif member.isreg():
                files[member.name] = member
            yield member, tar
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the end of the archive is missing")


class _Sidecar:
    """Label, split and metadata of the files with one stem."""

    def __init__(self) -> None:
        self.label: str | None = None
        self.split: str | None = None
        self.metadata: dict[str, Any] = {}

    def add(self, suffix: str, text: str, skipped: Counter[str]) -> None:
        """Add the text of a ``.cls``, ``.txt`` or ``.json`` file."""
        if suffix == ".cls":
            self.label = text.strip() or None
        elif suffix == ".txt":
            self.metadata["text"] = text.strip()
        else:
            try:
                fields = parse_json(text)
                if not isinstance(fields, dict):
                    raise ValueError("not an object")
            except ValueError:
                skipped["unreadable .json"] += 1
            else:
                self._add_fields(fields, skipped)

    def _add_fields(self, fields: dict[str, Any], skipped: Counter[str]) -> None:
        for name, value in fields.items():
            if value is not None and not isinstance(value, str | int | float):
                skipped["list or object in .json"] += 1
                continue
            value = _escaped(value) if isinstance(value, str) else value
            name = _escaped(name)
            if name in ("label", "split") and value is not None:
                setattr(self, name, getattr(self, name) or str(value))
            elif is_reserved(name):
                self.metadata[f"json_{name}"] = value
            else:
                self.metadata.setdefault(name, value)

    def update(self, other: _Sidecar) -> None:
        """Add what another has and this lacks."""
        self.label, self.split = self.label or other.label, self.split or other.split
        self.metadata = {**other.metadata, **self.metadata}


class _Group:
    """The files whose names are the same up to the first dot."""

    def __init__(self) -> None:
        #: Image by its name without the folder.
        self.images: dict[str, tarfile.TarInfo] = {}
        self.sidecars: dict[str, _Sidecar] = {}

    def items(self, skipped: Counter[str]) -> Iterator[tuple[str, tarfile.TarInfo, _Sidecar]]:
        """Yield key, image and sidecar of each item.

        A sample has one image: of ``x.jpg`` and ``x.mask.png``, that with a single suffix. Parts of digits belong to
        the name (``scan.001.jpg``). Images of which none has a single suffix (``x.left.png``, ``x.right.png``) are an
        item each, and share ``x.cls``.
        """
        samples: dict[str, list[str]] = {}
        for name in self.images:
            samples.setdefault(_key(name), []).append(name)
        used: set[str] = set()
        for key, names in samples.items():
            single = [name for name in names if _stem(name) == key]
            one = single[:1] or (names if len(names) == 1 else [])
            chosen = {key: one[0]} if one else {_stem(name): name for name in reversed(names)}
            if left_out := len(names) - len(chosen):
                skipped["further image of a sample"] += left_out
            for item, name in chosen.items() if one else reversed(chosen.items()):
                stems = dict.fromkeys((_stem(name), key, key.partition(".")[0]))
                if one:
                    stems |= dict.fromkeys(stem for stem in self.sidecars if _key(f"{stem}.") == key)
                sidecar = _Sidecar()
                for stem in stems:
                    if stem in self.sidecars:
                        used.add(stem)
                        sidecar.update(self.sidecars[stem])
                yield item, self.images[name], sidecar
        if unused := self.sidecars.keys() - used:
            skipped["sample without an image"] += len(unused)


def _samples(shard: str, skipped: Counter[str], refused: list[str]) -> Iterator[tuple[str, tarfile.TarInfo, _Sidecar]]:
    """Yield key, image and sidecar of the items of a shard, then raise the error of the shard, if any.

    Images that cannot be read are added to ``refused``.
    """
    groups: dict[str, _Group] = {}
    problem: Exception | None = None
    try:
        for member, tar in _members(shard):
            _take(member, tar, groups, skipped, refused)
    except Exception as error:
        problem = error
    for path, group in groups.items():
        for key, image, sidecar in group.items(skipped):
            yield posixpath.join(posixpath.dirname(path), key), image, sidecar
    if problem:
        raise problem


def _take(
    member: tarfile.TarInfo,
    tar: tarfile.TarFile,
    groups: dict[str, _Group],
    skipped: Counter[str],
    refused: list[str],
) -> None:
    if not member.isreg():
        if not member.isdir():
            skipped["link or device"] += 1
        return
    folder, name = posixpath.split(printable(member.name))
    suffix = suffix_of(name)
    if not is_image_name(name) and suffix not in (".cls", ".txt", ".json"):
        skipped[suffix or "no suffix"] += 1
        return
    group = groups.setdefault(posixpath.join(folder, name.partition(".")[0]), _Group())
    if is_image_name(name):
        if member.issparse():
            refused.append(printable(member.name))
            return
        if name in group.images:  # as in unpacking, the later one replaces it
            skipped["replaced by a later file of its name"] += 1
        group.images[name] = member
    elif member.issparse() or member.size > _LARGEST_SIDECAR:
        skipped[f"sparse or too large {suffix}"] += 1
    else:
        text = _read_text(tar, member)
        group.sidecars.setdefault(_stem(name), _Sidecar()).add(suffix, text, skipped)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _key(name: str) -> str:
    """Return a name up to its first dot, or the first that is not followed by digits and a dot."""
    return _KEY.match(name)[0]  # type: ignore[index]  # matches any name


def _escaped(text: str) -> str:
    """Return a text with lone surrogates, which no file can hold, as they are written in JSON."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read_text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file: Any = tar.fileobj
    file.seek(member.offset_data)
    return str(file.read(member.size).decode("utf-8", "backslashreplace"))


@functools.lru_cache(maxsize=16)
def _index(shard: str, time: int | None) -> dict[str, tuple[int, int]]:
    """Return offset and size of each file of a shard. A new ``time`` reads a changed shard again."""
    places: dict[str, tuple[int, int]] = {}
    try:
        for member, _ in _members(shard):
            if member.isreg() and not member.issparse():
                places[printable(member.name)] = (member.offset_data, member.size)
    except tarfile.ReadError:
        if not places:  # the files before the end of a truncated shard can be read
            raise
    return places


def _unreadable(shard: str, count: int, error: Exception) -> SourceError:
    """Return the error of a shard, raised after ``count`` images."""
    if isinstance(error, tarfile.ReadError) and not count and (kind := compression(open_file(shard).read_at(8, 0))):
        return SourceError(f"tar files must not be compressed, and this is {kind}: decompress it")
    return SourceError(f"truncated or unreadable shard, with {count} images before that: {error}")
