"""Option dataclasses, the one home of every default; where the cache is, and how many cores there are."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from embedpipe.errors import UsageError, nearest


def build_options(classes: tuple[type, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort keyword arguments into option dataclasses by field name.

    Raises UsageError, naming the nearest right name, for a name that none of them has.
    """
    known = {field.name for cls in classes for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise UsageError(f"unknown option {name!r}{nearest(name, known)}: there are {', '.join(sorted(known))}")
    return tuple(
        cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}) for cls in classes
    )


def cache_folder() -> Path:
    """Return the folder for what can be made again: EMBEDPIPE_CACHE, else the user's cache folder."""
    return Path(os.environ.get("EMBEDPIPE_CACHE") or platformdirs.user_cache_dir("embedpipe"))


@functools.cache
def usable_cores() -> int:
    """Return how many cores there are for this process: what its affinity and its container leave."""
    import joblib  # not at start-up

    return int(joblib.cpu_count())
