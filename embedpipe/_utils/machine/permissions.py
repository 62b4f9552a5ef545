"""What a message says of files and folders that this user may not open."""

from __future__ import annotations

import os
from pathlib import Path


def closed(path: str | os.PathLike[str]) -> str:
    """Return what must hold of a path that this user may not open, or of the folder on the way there that is closed."""
    place = Path(path).absolute()
    last = place if os.path.lexists(place) else place.parent  # which cannot be written
    folder = next((parent for parent in reversed(place.parents) if _is_closed(parent)), last)
    return f"{str(folder)!r} must be open to this user, and permission is denied: change it (chmod), or ask its owner"


def first_closed(folder: str | os.PathLike[str]) -> str | None:
    """Return the first folder or file below a local folder, or that itself, which this user may not read."""
    failed: list[str] = []
    for place, _, names in os.walk(folder, onerror=lambda error: failed.append(str(error.filename))):
        for name in sorted(names):
            path = os.path.join(place, name)  # noqa: PTH118  a store may have many files
            try:
                os.close(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
            except PermissionError:
                return path
            except OSError:  # gone, or a kind of file that others refuse
                continue
    return next((path for path in failed if _may_not_list(path)), None)


def _is_closed(folder: Path) -> bool:
    """Return whether names below a folder may not be looked up. `os.access` would answer for the real user."""
    try:
        os.stat(os.path.join(folder, "."))  # noqa: PTH116, PTH118  pathlib drops the dot
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _may_not_list(path: str) -> bool:
    try:
        os.scandir(path).close()
    except OSError as error:
        return isinstance(error, PermissionError)
    return False
