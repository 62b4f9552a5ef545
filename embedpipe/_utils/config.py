"""The cache folder, and the number of cores that this process may use."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder for files that can be computed again: EMBEDPIPE_CACHE if set, else the user's cache folder."""
    return Path(os.environ.get("EMBEDPIPE_CACHE") or platformdirs.user_cache_dir("embedpipe"))


@functools.cache
def usable_cores() -> int:
    """Return how many cores this process may use, given its CPU affinity and its container's limit."""
    import joblib  # slow to import

    return int(joblib.cpu_count())
