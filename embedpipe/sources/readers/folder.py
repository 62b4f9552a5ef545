"""Listing of a folder: flat, with a folder per class, or with folders for train, validation and test."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from embedpipe._utils.machine.regular_files import describe_mode
from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe.errors import Failure, SourceError
from embedpipe.sources.access.outage import is_outage
from embedpipe.sources.file_types import (
    TABLE_SUFFIXES,
    TAR_SUFFIX,
    TEXT_SUFFIXES,
    VIDEO_SUFFIXES,
    is_payload_name,
    list_suffixes,
    suffix_of,
)
from embedpipe.sources.listing import CHUNK_ROWS, SPLITS, Listing, ListingBuilder
from embedpipe.sources.locations import filesystem, is_url, join, local_uri, printable
from embedpipe.sources.options import WITH_ARTICLE, Modality, or_other_modality
from embedpipe.sources.reading import Files

#: Folders that systems, network storage and tools keep beside data, in lower case. Hidden folders are left out too.
SYSTEM_FOLDERS = frozenset((
    "__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "@sharebin", "@tmp",
    "$recycle.bin", "recycler", "system volume information", "lost+found", "__pycache__",
))  # fmt: skip

#: Mounts of the kernel, which hold no data and may have no end.
KERNEL_MOUNTS = ("/proc", "/sys", "/dev")


class _Folder(NamedTuple):
    """The sorted names in a folder, the subsets of folders and of links, and for a remote folder sizes and times."""

    names: list[str]
    folders: set[str]
    links: set[str]
    sizes_and_times: dict[str, tuple[int | None, int | None]]


class _Item(NamedTuple):
    """A name in a folder of an image or text, with its error if it cannot be read."""

    name: str
    size: int | None = None
    modified: int | None = None
    error: Exception | None = None


def list_folder(root: str, modality: Modality, videos: bool = False) -> Listing:
    """List the images or texts below a folder by suffix, in a fixed order.

    Ids are paths relative to the folder. The first folder of the path is the label. If every top folder that holds
    items has the name of a split (`SPLITS`), the first folder is the split and the second the label; also if two
    different splits are among them and class folders below. Hidden and system folders, feature stores and heads are
    left out. Links to folders are followed, but each folder is listed once.

    Parameters
    ----------
    root : str
        Absolute path or URL.
    modality : str
        ``"image"`` or ``"text"``, which decides the suffixes.
    videos : bool
        List files of videos too.

    Raises
    ------
    SourceError
        The folder cannot be read or holds no items. The message lists the file types that it holds.
    """
    walk = _Walk(root, modality, VIDEO_SUFFIXES if videos else ())
    table, notes = walk.build()
    if not len(table) and not walk.failures:
        raise SourceError(f"no {modality}s in {printable(root)!r}: {_contents_of(walk.skipped, root, modality)}")
    return Listing(
        table,
        printable(root),
        Files(table.column("uri"), modality),
        tuple(walk.failures),
        dict(walk.skipped),
        notes,
    )


class _Walk:
    """Walks a folder, and collects failures and counts of what is left out."""

    def __init__(self, root: str, modality: Modality, more_suffixes: tuple[str, ...]) -> None:
        self.root = root
        self.modality = modality
        self._more_suffixes = more_suffixes
        self.failures: list[Failure] = []
        self.skipped: Counter[str] = Counter()
        self._is_remote = is_url(root)
        #: (device, inode) of each folder.
        self._visited: set[tuple[int, int]] = set()
        self._real_root = "" if is_url(root) else os.path.realpath(root)
        self._kernel_devices = set() if is_url(root) else _devices(*KERNEL_MOUNTS) - _devices("/", root)

    def build(self) -> tuple[pa.Table, tuple[str, ...]]:
        """Walk the folder and return the table of the listing, and notes."""
        builder = ListingBuilder()
        tops = _TopFolders()
        try:
            top = _scan(self.root)
        except Exception as error:
            raise SourceError(f"cannot list the folder {printable(self.root)!r}: {error}") from error
        for folder, items in self._items(top):
            before = f"{folder}/" if folder else ""
            tops.add(folder, len(items))
            for name, size, modified, problem in items:
                id, uri = printable(before + name), self._uri(before + name)
                if problem:
                    self.failures.append(Failure.of(id, uri, problem, "read"))
                else:
                    builder.add(id, uri, size, modified)
        return tops.with_labels(builder.finish()), tops.notes(self.root)

    def _uri(self, relative: str) -> str:
        # Not join(), as a file name may look like a URL or contain dots.
        return join(self.root, relative) if self._is_remote else local_uri(self._path(relative))

    def _items(self, top: _Folder) -> Iterator[tuple[str, list[_Item]]]:
        """Yield each folder with its images or texts, and anything else with such a name as an error."""
        pending: list[tuple[str, bool]] = [("", False)]
        while pending:
            folder, is_link = pending.pop()
            try:
                if reason := self._reason_to_skip(folder, is_link):
                    self.skipped[reason] += 1
                    continue
                entries = _scan(self._path(folder)) if folder else top
            except Exception as error:
                if is_outage(error):  # half a listing would make the other half look deleted
                    raise SourceError(f"cannot list the folder {printable(self._path(folder))!r}: {error}") from error
                self.failures.append(Failure.of(printable(folder), self._uri(folder), error, "list"))
                continue
            if folder and (own := _written_by_embedpipe(entries)):
                self.skipped[own] += 1
                continue
            if not entries.names and is_payload_name(folder, self.modality):
                above, _, name = folder.rpartition("/")
                reason = f"an empty folder with the suffix of {WITH_ARTICLE[self.modality]}"
                yield above, [_Item(name, error=IsADirectoryError(reason))]
            below = []
            items = []
            path = self._path(folder)
            for name in entries.names:
                if name.startswith("."):
                    self.skipped["hidden"] += 1
                elif name in entries.folders:
                    if name.lower() in SYSTEM_FOLDERS:
                        self.skipped[f"folder {name}"] += 1
                    else:
                        below.append((f"{folder}/{name}" if folder else name, name in entries.links))
                elif not (is_payload_name(name, self.modality) or suffix_of(name) in self._more_suffixes):
                    self.skipped[printable(suffix_of(name)) or "no suffix"] += 1
                elif self._is_remote:
                    items.append(_Item(name, *entries.sizes_and_times[name]))
                else:
                    items.append(_local_item(path, name))
                if len(items) == CHUNK_ROWS:  # to save memory
                    yield folder, items
                    items = []
            if items:
                yield folder, items
            pending.extend(reversed(below))

    def _path(self, folder: str) -> str:
        if self._is_remote:
            return join(self.root, folder)
        return f"{self.root.rstrip('/')}/{folder}" if folder else self.root

    def _reason_to_skip(self, folder: str, is_link: bool) -> str | None:
        """Return why a folder is not entered, such as a link to a folder that is listed anyway."""
        if self._is_remote:
            return None
        path = self._path(folder)
        info = Path(path).stat()
        if info.st_dev in self._kernel_devices:
            return "folder of the kernel"
        if is_link:
            real = os.path.realpath(path)
            if f"{self._real_root}/".startswith(f"{real.rstrip('/')}/"):
                return "link to a parent folder"
            inside = real.removeprefix(f"{self._real_root.rstrip('/')}/")
            if inside != real and not any(map(is_left_out, inside.split("/"))):
                return "link to a listed folder"
        if (info.st_dev, info.st_ino) in self._visited:
            return "link to a listed folder"
        self._visited.add((info.st_dev, info.st_ino))
        return None


class _TopFolders:
    """The top folders that hold items: labels, or splits with labels below."""

    def __init__(self) -> None:
        #: Items in each top folder, and the number of them in a folder below.
        self._items: Counter[str] = Counter()
        self._deeper: Counter[str] = Counter()
        self._flat = 0

    def add(self, folder: str, count: int) -> None:
        """Count the items in a folder."""
        top, _, below = folder.partition("/")
        if not top:
            self._flat += count
            return
        self._items[top] += count
        self._deeper[top] += count if below else 0

    @property
    def _splits(self) -> list[str]:
        return sorted(name for name in self._items if name.lower() in SPLITS)

    @property
    def _others(self) -> list[str]:
        return sorted(name for name in self._items if name.lower() not in SPLITS)

    @property
    def are_splits(self) -> bool:
        """Whether the top folders are splits."""
        return are_splits({name: self._deeper[name] > 0 for name in self._items})

    def with_labels(self, table: pa.Table) -> pa.Table:
        """Return a table of items with their labels and splits."""
        ids = table.column("id")
        depth = pc.count_substring(ids, "/")
        parts = pc.split_pattern(pc.binary_join_element_wise(ids, "/", ""), "/", max_splits=2)
        first, second = pc.list_element(parts, 0), pc.list_element(parts, 1)
        null = pa.scalar(None, pa.string())
        if self.are_splits:
            place = pc.index_in(pc.utf8_lower(first), value_set=pa.array(SPLITS))
            split = pa.chunked_array([pa.array(SPLITS.values()).take(chunk) for chunk in place.chunks], pa.string())
            columns = {
                "label": pc.if_else(pc.greater(depth, 1), second, null),
                "split": pc.if_else(pc.greater(depth, 0), split, null),
            }
        else:
            columns = {"label": pc.if_else(pc.greater(depth, 0), first, null)}
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    def notes(self, root: str) -> tuple[str, ...]:
        """Return what was guessed about the folders."""
        splits, others = (", ".join(map(printable, names[:5])) for names in (self._splits, self._others))
        if self.are_splits and others:
            count = sum(self._items[name] for name in self._others)
            items = counted(count, "item")
            return (f"top folders {splits} are splits; without one: {items} in other top folders: {others}",)
        if not self.are_splits and splits:
            return (f"top folders are labels, also {splits}, as there are other top folders: {others}",)
        if len(self._items) == 1 and others and self._deeper[self._others[0]] and not self._flat:
            return (
                f"all items have the label {others!r}, the only top folder; for the folders in it embed "
                f"{printable(join(root, self._others[0]))!r}",
            )
        return ()


def are_splits(tops: Mapping[str, bool]) -> bool:
    """Return whether top folders are splits. Folders beside them are strays if splits have class folders.

    ``tops``: name of a folder that holds items -> whether a folder below holds some.
    """
    splits = {name: SPLITS[name.lower()] for name in tops if name.lower() in SPLITS}
    different = {*splits.values()}
    has_classes = any(tops[name] for name in splits)
    return bool(different) and (len(splits) == len(tops) or (len(different) > 1 and has_classes))


def is_left_out(name: str) -> bool:
    """Return whether a folder or file of this name is hidden, or a folder of a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _written_by_embedpipe(entries: _Folder) -> str | None:
    if "_delta_log" in entries.folders:
        return "feature store"
    if {"manifest.json", "head.skops"} <= {*entries.names}:
        return "head"
    return None


def _devices(*folders: str) -> set[int]:
    return {Path(folder).stat().st_dev for folder in folders if Path(folder).exists()}


def _scan(folder: str) -> _Folder:
    if not is_url(folder):
        with os.scandir(folder) as entries:
            names, folders, links = [], set(), set()
            for entry in entries:  # names only, to save memory
                names.append(entry.name)
                if is_folder(entry):
                    folders.add(entry.name)
                    if entry.is_symlink():
                        links.add(entry.name)
        return _Folder(sorted(names), folders, links, {})
    remote, path = filesystem(folder)
    # Object stores represent folders as objects without a name.
    infos = [info for info in remote.get_file_info(pafs.FileSelector(path)) if info.base_name]
    return _Folder(
        sorted(info.base_name for info in infos),
        {info.base_name for info in infos if info.type == pafs.FileType.Directory},
        set(),
        {info.base_name: (info.size, info.mtime_ns) for info in infos},
    )


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # such as a link to itself, which fails later when it is read
        return False


def _local_item(folder: str, name: str) -> _Item:
    path = f"{folder.rstrip('/')}/{name}"
    try:
        info = os.stat(path)  # noqa: PTH116  a Path takes longer to make than this
    except OSError as error:
        if isinstance(error, FileNotFoundError) and Path(path).is_symlink():
            target = printable(str(Path(path).readlink()))
            return _Item(name, error=FileNotFoundError(f"a link to {target!r}, which does not exist"))
        return _Item(name, error=error)
    if not stat.S_ISREG(info.st_mode):
        return _Item(name, error=OSError(f"{describe_mode(info.st_mode)}, not a file"))
    return _Item(name, info.st_size, info.st_mtime_ns)


def _contents_of(skipped: Counter[str], root: str, modality: Modality) -> str:
    if not skipped:
        return "the folder is empty"
    types = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
    if modality == "image" and any(suffix in TEXT_SUFFIXES + VIDEO_SUFFIXES for suffix in skipped):
        advice = []
        if any(suffix in VIDEO_SUFFIXES for suffix in skipped):
            advice.append(f"to embed frames of videos, give {option('every', '1s')}")
        if any(suffix in TEXT_SUFFIXES for suffix in skipped):
            advice.append(or_other_modality(f"to embed texts, give {option('modality', 'text')}", modality))
        return f"found {types}; {'; '.join(advice)}"
    if TAR_SUFFIX in skipped and modality == "image":  # the tables beside shards list what is in them
        return f"found {types}; for WebDataset shards pass {join(root, '*.tar')!r}"
    for suffix in skipped:
        if suffix in TABLE_SUFFIXES + list_suffixes(modality):
            return f"found {types}; pass the {suffix} file itself if it lists the {modality}s"
    return f"found {types}"
