"""A folder of images: flat, one folder a class, or train, validation and test folders of either."""

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
from embedpipe.sources.listing import Listing, ListingBuilder
from embedpipe.sources.locations import describe_mode, filesystem, is_url, join, local_uri, printable, read_bytes
from embedpipe.sources.suffixes import LIST_SUFFIXES, TABLE_SUFFIXES, TAR_SUFFIX, is_image_name, suffix_of

SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

#: (device, inode) of a folder and of those it lies in, innermost first.
Ancestors = tuple[tuple[int, int], ...]


class _Entry(NamedTuple):
    name: str
    is_folder: bool
    size: int | None = None
    modified: int | None = None
    error: Exception | None = None


def list_folder(root: str) -> Listing:
    """List the images below a folder, by suffix, in an order that is always the same.

    Ids are paths relative to the folder. The first folder of that path is the label; where every top
    folder is named for a split (`SPLITS`), that is the split and the next folder is the label. Links to
    folders are followed, except back into a folder that they lie in.

    Parameters
    ----------
    root : str
        Absolute path or URL.

    Raises
    ------
    SourceError
        The folder cannot be read or holds no images; the message says what it holds instead.
    """
    walk = _Walk(root)
    table = walk.build()
    if not len(table) and not walk.failures:
        raise SourceError(f"no images in {printable(root)!r}: {_found_instead(walk.skipped, root)}")
    uris = table.column("uri")
    return Listing(
        table, printable(root), lambda row: read_bytes(uris[row].as_py()), tuple(walk.failures), dict(walk.skipped)
    )


class _Walk:
    """One walk through a folder: what it lists, cannot list, and leaves out."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.failures: list[Failure] = []
        self.skipped: Counter[str] = Counter()

    def build(self) -> pa.Table:
        """Walk, and return the listing's table."""
        builder = ListingBuilder()
        try:
            top = _scan(self.root)
        except Exception as error:
            raise SourceError(f"cannot list the folder {printable(self.root)!r}: {error}") from error
        folders = [e.name for e in top if e.is_folder and not e.name.startswith(".")]
        by_split = bool(folders) and all(name.lower() in SPLITS for name in folders)
        for relative, entry in self._files(top):
            parts = relative.split("/")
            split = SPLITS[parts[0].lower()] if by_split and len(parts) > 1 else None
            label = parts[by_split] if len(parts) > 1 + by_split else None
            uri = self._uri(relative)
            if entry.error:
                self.failures.append(Failure.of(printable(relative), uri, entry.error, "list"))
            else:
                label = None if label is None else printable(label)
                builder.add(printable(relative), uri, entry.size, entry.modified, label, split)
        return builder.finish()

    def _uri(self, relative: str) -> str:
        # Not join(): a file's own name may look like a URL, or have dots to collapse.
        return join(self.root, relative) if is_url(self.root) else local_uri(self._path(relative))

    def _files(self, top: list[_Entry]) -> Iterator[tuple[str, _Entry]]:
        """Yield the relative path of each image, or of each thing that is named like one."""
        pending: list[tuple[str, list[_Entry] | None, Ancestors]] = [("", top, ())]
        while pending:
            folder, entries, ancestors = pending.pop()
            try:
                ancestors = self._enter(folder, ancestors)
                if entries is None:
                    entries = _scan(self._path(folder))
            except Exception as error:
                self.failures.append(Failure.of(printable(folder), self._uri(folder), error, "list"))
                continue
            if ancestors and ancestors[0] in ancestors[1:]:
                self.skipped["folder link that leads back"] += 1
                continue
            if not entries and is_image_name(folder):
                yield folder, _Entry(folder, True, error=IsADirectoryError("an empty folder, named like an image"))
            below = []
            for entry in entries:
                relative = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    self.skipped["hidden"] += 1
                elif entry.is_folder:
                    below.append((relative, None, ancestors))
                elif is_image_name(entry.name):
                    yield relative, entry
                else:
                    self.skipped[printable(suffix_of(entry.name)) or "no suffix"] += 1
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


def _scan(folder: str) -> list[_Entry]:
    """Return the entries of one folder by name; sizes and times of those that are images by name."""
    if is_url(folder):
        remote, path = filesystem(folder)
        found = remote.get_file_info(pafs.FileSelector(path))
        entries = [
            _Entry(info.base_name, info.type == pafs.FileType.Directory, info.size, info.mtime_ns) for info in found
        ]
        # Object stores hold folders as objects of no name.
        return sorted((entry for entry in entries if entry.name), key=lambda entry: entry.name)
    with os.scandir(folder) as found:
        return sorted((_local_entry(entry) for entry in found), key=lambda entry: entry.name)


def _local_entry(entry: os.DirEntry[str]) -> _Entry:
    try:
        if entry.is_dir():
            return _Entry(entry.name, True)
        if not is_image_name(entry.name):
            return _Entry(entry.name, False)
        info = entry.stat()
    except FileNotFoundError:
        target = printable(str(Path(entry.path).readlink())) if entry.is_symlink() else "?"
        return _Entry(entry.name, False, error=FileNotFoundError(f"a link to {target!r}, which is not there"))
    except OSError as error:
        return _Entry(entry.name, False, error=error)
    if not stat.S_ISREG(info.st_mode):
        return _Entry(entry.name, False, error=OSError(f"{describe_mode(info.st_mode)}, not a file"))
    return _Entry(entry.name, False, info.st_size, info.st_mtime_ns)


def _found_instead(skipped: Counter[str], root: str) -> str:
    if not skipped:
        return "the folder is empty"
    found = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
    for suffix in skipped:
        if suffix == TAR_SUFFIX:
            return f"found {found}; for WebDataset shards pass {join(root, '*.tar')!r}"
        if suffix in TABLE_SUFFIXES + LIST_SUFFIXES:
            return f"found {found}; pass the {suffix} file itself if it lists the images"
    return f"found {found}"
