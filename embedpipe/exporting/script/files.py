"""The files that an exported script reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.readers.folder import are_splits, is_folder, is_left_out

Item = dict[str, Any]


def files_in(source: str, suffixes: Sequence[str], column: str) -> list[Item]:
    """Return the files below a folder, or one file; folders are labels, as for `embedpipe predict`.

    What cannot be read, such as a named pipe, is listed too: the reason is found when it is read.
    """
    if not source:
        sys.exit("a source must have a name, got ''")
    path = Path(source)
    if not path.is_dir():
        return [{"id": path.name, "uri": str(path.absolute())}]
    names = list(_walk(path, suffixes))
    items = [{"id": name, "uri": str(path.absolute() / name)} for name in names]
    if column != "label":
        return items
    tops: dict[str, bool] = {}
    for name in names:
        top, below, rest = name.partition("/")
        if below:
            tops[top] = tops.get(top, False) or "/" in rest
    depth = int(are_splits(tops))
    for item in items:
        parts = item["id"].split("/")
        if len(parts) > depth + 1:
            item["actual"] = parts[depth]
    return items


def _walk(root: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Yield the paths of files below a folder, relative to it: those of a folder before those of folders in it.

    Links to folders are followed, but each folder is listed once.
    """
    visited: set[tuple[int, int]] = set()
    pending = [("", False)]
    while pending:
        folder, is_link = pending.pop()
        try:
            info = (root / folder).stat()
            if (is_link and _is_listed(root / folder, root)) or (info.st_dev, info.st_ino) in visited:
                continue
            visited.add((info.st_dev, info.st_ino))
            with os.scandir(root / folder) as entries:
                inside = sorted((entry.name, is_folder(entry), entry.is_symlink()) for entry in entries)
        except OSError as error:
            if not folder:
                sys.exit(f"cannot list the folder {root}: {error}")
            yield folder
            continue
        if folder and not inside and suffix_of(folder) in suffixes:
            yield folder  # an empty folder with the name of a file
        below = []
        for name, is_below, is_link in inside:
            path = f"{folder}/{name}" if folder else name
            if is_below and not is_left_out(name):
                below.append((path, is_link))
            elif not is_below and not name.startswith(".") and suffix_of(name) in suffixes:
                yield path
        pending.extend(reversed(below))


def _is_listed(link: Path, root: Path) -> bool:
    """Return whether a link leads to a folder around the root, or to one below it that is listed anyway."""
    real, above = os.path.realpath(link), os.path.realpath(root)
    if f"{above}/".startswith(f"{real.rstrip('/')}/"):
        return True
    inside = real.removeprefix(f"{above.rstrip('/')}/")
    return inside != real and not any(map(is_left_out, inside.split("/")))


def require_items(items: Sequence[Item], sources: Sequence[str], suffixes: Sequence[str]) -> None:
    """End the script if there is nothing to predict."""
    if not items:
        sys.exit(f"nothing to predict in {', '.join(sources)}: name files, or a folder of files {', '.join(suffixes)}")
