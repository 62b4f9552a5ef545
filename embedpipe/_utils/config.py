"""Where the cache folder is, and how many cores this process may use."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder for what can be made again: EMBEDPIPE_CACHE, else the user's cache folder."""
    return Path(os.environ.get("EMBEDPIPE_CACHE") or platformdirs.user_cache_dir("embedpipe"))


@functools.cache
def usable_cores() -> int:
    """Return how many cores there are for this process: what its affinity and its container leave."""
    import joblib  # not at start-up

    return int(joblib.cpu_count())
