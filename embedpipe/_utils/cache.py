"""Folders of the cache, which nobody but the user can write, and its limit of size.

Later runs rely on what is cached, in other processes too. So a folder that somebody else owns or can write is refused.
Where the folder cannot be written, such as on a read-only disk, nothing is cached and one warning says so.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedpipe._utils.config import cache_folder, cache_limit
from embedpipe.errors import UsageError

#: The parts of the cache, and how the names of entries in them begin. The folder may hold other files, as the user
#: chooses it: nothing else is listed, searched or deleted.
PARTS = (
    "datasets",
    "engines",
    "evaluations",
    "graphs",
    "ledger",
    "maps",
    "rank",
    "specs",
    "transformer",
    "vectors",
    "views",
)
#: The part that cannot be made again: only the user deletes it.
KEPT = "ledger"
_ENTRY = re.compile(r"[0-9a-f]{16}|new-|\.[0-9a-f]{16}")

#: Seconds for which an entry is not deleted for want of room after it was used, as another process may use it.
IN_USE = 3600.0

_reported: set[Path] = set()


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A file or folder of the cache: its place, size in bytes, and last use in seconds of the epoch."""

    path: Path
    size: int
    used: float

    @property
    def name(self) -> str:
        """The part of the cache, and the name of the entry in it."""
        return f"{self.path.parent.name}/{self.path.name}"


def find_cache(part: str) -> Path | None:
    """Return the folder of a part of the cache to read from, such as ``vectors``; None where there is none.

    Raises
    ------
    UsageError
        If the cache folder or this part of it belongs to somebody else, or others can write it.
    """
    try:
        for folder in (cache_folder(), cache_folder() / part):
            _require_own(folder, folder.stat())
    except OSError:
        return None
    return folder if folder.is_dir() else None


def make_cache(part: str) -> Path:
    """Return the folder of a part of the cache to write to, made with mode 0700 if it is missing.

    Raises
    ------
    OSError
        If it cannot be written.
    UsageError
        As `find_cache`.
    """
    folder = cache_folder() / part
    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    for each in (cache_folder(), folder):
        each.mkdir(mode=0o700, exist_ok=True)
        _require_own(each, each.stat())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    return folder


def open_cache(part: str) -> Path | None:
    """Return what `make_cache` returns; where the folder cannot be written, warn once and return None."""
    try:
        return make_cache(part)
    except OSError as error:
        cannot_cache(error)
        return None


def name_of(store: str) -> str:
    """Return the name that files of a store have in the cache, from the id of its table, which may be any string."""
    return hashlib.sha256(store.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def cannot_cache(error: OSError) -> None:
    """Warn once in this process that nothing is cached."""
    if cache_folder() not in _reported:
        _reported.add(cache_folder())
        warnings.warn(
            f"the cache folder {str(cache_folder())!r} cannot be written ({error.strerror or error}): nothing is "
            "cached, so later runs take longer; set the environment variable EMBEDPIPE_CACHE to a folder of yours",
            stacklevel=3,
        )


def mark_used(entry: Path) -> None:
    """Note that an entry is used now: when room is short, the least recently used entries go first."""
    with suppress(OSError):  # a cache that can be read only
        os.utime(entry)


def cache_entries() -> list[CacheEntry]:
    """Return all entries, the last used first. Raises as `find_cache` does."""
    entries = []
    for part in PARTS:
        if (folder := find_cache(part)) is not None:
            entries += [_entry(path) for path in _list(folder) if _ENTRY.match(path.name)]
    return sorted(entries, key=lambda entry: (-entry.used, entry.name))


def drop_entry(path: Path) -> None:
    """Delete an entry. A process that has it open keeps it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def keep_limit() -> None:
    """Delete the least recently used entries while the cache is larger than its limit (``EMBEDPIPE_CACHE_GB``)."""
    limit, total = cache_limit(), 0
    for entry in cache_entries():
        if entry.path.parent.name == KEPT:
            continue
        total += entry.size
        if total > limit and entry.used < time.time() - IN_USE:
            drop_entry(entry.path)


def _require_own(folder: Path, info: os.stat_result) -> None:
    if not hasattr(os, "geteuid"):  # Windows: the folder lies in the user's profile
        return
    if info.st_uid not in (os.geteuid(), 0):
        found, remedy = f"it belongs to user {info.st_uid}", ""
    elif info.st_mode & 0o022:
        found, remedy = "others can write it", f"run `chmod go-w {folder}` if its content is yours, or "
    else:
        return
    raise UsageError(
        f"the cache folder {str(folder)!r} must be yours, and nobody else may write it, as later runs rely on its "
        f"content; {found}: {remedy}set the environment variable EMBEDPIPE_CACHE to a folder of yours"
    )


def _entry(path: Path) -> CacheEntry:
    size, used = 0, 0.0
    inside = (Path(place, name) for place, folders, files in os.walk(path) for name in (*folders, *files))
    for each in (path, *inside):
        with suppress(OSError):  # another process deleted it
            info = each.lstat()
            size, used = size + (0 if each.is_dir() else info.st_size), max(used, info.st_mtime)
    # A time in the future is one of a clock that was wrong: it says nothing about the last use.
    return CacheEntry(path, size, used if used < time.time() + IN_USE else 0.0)


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []
