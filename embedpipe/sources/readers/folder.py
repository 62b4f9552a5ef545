"""Listing of a folder: flat, with a folder per class, or with folders for train, validation and test."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from embedpipe.errors import Failure, SourceError
from embedpipe.sources.file_types import (
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    TEXT_SUFFIXES,
    is_payload_name,
    list_suffixes,
    read_payload,
    suffix_of,
)
from embedpipe.sources.listing import SPLITS, Listing, ListingBuilder
from embedpipe.sources.locations import describe_mode, filesystem, is_url, join, local_uri, printable
from embedpipe.sources.options import WITH_ARTICLE, Modality

#: (device, inode) of a folder and its parents, innermost first.
Ancestors = tuple[tuple[int, int], ...]


class _Folder(NamedTuple):
    """The sorted names in a folder, the subset of folders, and for a remote folder sizes and times."""

    names: list[str]
    folders: set[str]
    sizes_and_times: dict[str, tuple[int | None, int | None]]


class _Item(NamedTuple):
    """A name of an image or text, with its error if it cannot be read."""

    relative: str
    size: int | None = None
    modified: int | None = None
    error: Exception | None = None


def list_folder(root: str, modality: Modality) -> Listing:
    """List the images or texts below a folder by suffix, in a fixed order.

    Ids are paths relative to the folder. The first folder of the path is the label. If every top folder has the name
    of a split (`SPLITS`), the first folder is the split and the second the label. Links to folders are followed,
    except links to a parent folder.

    Parameters
    ----------
    root : str
        Absolute path or URL.
    modality : str
        ``"image"`` or ``"text"``, which decides the suffixes.

    Raises
    ------
    SourceError
        The folder cannot be read or holds no items. The message lists the file types that it holds.
    """
    walk = _Walk(root, modality)
    table = walk.build()
    if not len(table) and not walk.failures:
        raise SourceError(f"no {modality}s in {printable(root)!r}: {_contents_of(walk.skipped, root, modality)}")
    uris = table.column("uri")
    return Listing(
        table,
        printable(root),
        lambda row: read_payload(uris[row].as_py(), modality),
        tuple(walk.failures),
        dict(walk.skipped),
    )


class _Walk:
    """Walks a folder, and collects failures and counts of skipped files."""

    def __init__(self, root: str, modality: Modality) -> None:
        self.root = root
        self.modality = modality
        self.failures: list[Failure] = []
        self.skipped: Counter[str] = Counter()

    def build(self) -> pa.Table:
        """Walk the folder and return the table of the listing."""
        builder = ListingBuilder()
        try:
            top = _scan(self.root)
        except Exception as error:
            raise SourceError(f"cannot list the folder {printable(self.root)!r}: {error}") from error
        folders = [name for name in top.folders if not name.startswith(".")]
        by_split = bool(folders) and all(name.lower() in SPLITS for name in folders)
        for item in self._items(top):
            parts = item.relative.split("/")
            split = SPLITS[parts[0].lower()] if by_split and len(parts) > 1 else None
            label = printable(parts[by_split]) if len(parts) > 1 + by_split else None
            id, uri = printable(item.relative), self._uri(item.relative)
            if item.error:
                self.failures.append(Failure.of(id, uri, item.error, "read"))
            else:
                builder.add(id, uri, item.size, item.modified, label, split)
        return builder.finish()

    def _uri(self, relative: str) -> str:
        # Not join(), as a file name may look like a URL or contain dots.
        return join(self.root, relative) if is_url(self.root) else local_uri(self._path(relative))

    def _items(self, top: _Folder) -> Iterator[_Item]:
        """Yield each image or text, and anything else with such a name as an error."""
        pending: list[tuple[str, _Folder | None, Ancestors]] = [("", top, ())]
        while pending:
            folder, entries, ancestors = pending.pop()
            try:
                ancestors = self._enter(folder, ancestors)
                if ancestors and ancestors[0] in ancestors[1:]:
                    self.skipped["link to a parent folder"] += 1
                    continue
                entries = entries or _scan(self._path(folder))
            except Exception as error:
                self.failures.append(Failure.of(printable(folder), self._uri(folder), error, "list"))
                continue
            if not entries.names and is_payload_name(folder, self.modality):
                yield _Item(
                    folder, error=IsADirectoryError(f"an empty folder with the suffix of {WITH_ARTICLE[self.modality]}")
                )
            below = []
            for name in entries.names:
                relative = f"{folder}/{name}" if folder else name
                if name.startswith("."):
                    self.skipped["hidden"] += 1
                elif name in entries.folders:
                    below.append((relative, None, ancestors))
                elif not is_payload_name(name, self.modality):
                    self.skipped[printable(suffix_of(name)) or "no suffix"] += 1
                elif is_url(self.root):
                    yield _Item(relative, *entries.sizes_and_times[name])
                else:
                    yield _local_item(relative, Path(self._path(relative)))
            pending.extend(reversed(below))

    def _path(self, folder: str) -> str:
        if is_url(self.root):
            return join(self.root, folder)
        return f"{self.root.rstrip('/')}/{folder}" if folder else self.root

    def _enter(self, folder: str, ancestors: Ancestors) -> Ancestors:
        if is_url(self.root):
            return ()
        info = Path(self._path(folder)).stat()
        return ((info.st_dev, info.st_ino), *ancestors)


def _scan(folder: str) -> _Folder:
    if not is_url(folder):
        with os.scandir(folder) as entries:
            names, folders = [], set()
            for entry in entries:  # names only, to save memory
                names.append(entry.name)
                if _is_folder(entry):
                    folders.add(entry.name)
        return _Folder(sorted(names), folders, {})
    remote, path = filesystem(folder)
    # Object stores represent folders as objects without a name.
    infos = [info for info in remote.get_file_info(pafs.FileSelector(path)) if info.base_name]
    return _Folder(
        sorted(info.base_name for info in infos),
        {info.base_name for info in infos if info.type == pafs.FileType.Directory},
        {info.base_name: (info.size, info.mtime_ns) for info in infos},
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself, which fails later when it is read
        return False


def _local_item(relative: str, path: Path) -> _Item:
    try:
        info = path.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            target = printable(str(path.readlink()))
            return _Item(relative, error=FileNotFoundError(f"a link to {target!r}, which does not exist"))
        return _Item(relative, error=error)
    if not stat.S_ISREG(info.st_mode):
        return _Item(relative, error=OSError(f"{describe_mode(info.st_mode)}, not a file"))
    return _Item(relative, info.st_size, info.st_mtime_ns)


def _contents_of(skipped: Counter[str], root: str, modality: Modality) -> str:
    if not skipped:
        return "the folder is empty"
    types = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
    if modality == "image" and any(suffix in TEXT_SUFFIXES for suffix in skipped):
        return f"found {types}; to embed texts, give --modality text"
    for suffix in skipped:
        if suffix == TAR_SUFFIX and modality == "image":
            return f"found {types}; for WebDataset shards pass {join(root, '*.tar')!r}"
        if suffix in TABLE_SUFFIXES + list_suffixes(modality):
            return f"found {types}; pass the {suffix} file itself if it lists the {modality}s"
    return f"found {types}"
