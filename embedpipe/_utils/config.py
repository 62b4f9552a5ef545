"""The cache folder and its limit, and the number of cores that this process may use."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import platformdirs

from embedpipe.errors import UsageError

#: Default of ``EMBEDPIPE_CACHE_GB``.
CACHE_GB = 50.0


def cache_folder() -> Path:
    """Return the folder for files that can be computed again: EMBEDPIPE_CACHE if set, else the user's cache folder.

    Read and write through `embedpipe._utils.cache`, which checks whose folder it is. Raises UsageError for a user
    without a home, as in some containers.
    """
    try:
        return Path(os.environ.get("EMBEDPIPE_CACHE") or platformdirs.user_cache_dir("embedpipe")).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"the cache folder is not known ({error}): set EMBEDPIPE_CACHE to a folder of yours"
        ) from error


def cache_limit() -> int:
    """Return the largest size of the cache in bytes: EMBEDPIPE_CACHE_GB if set, else `CACHE_GB`."""
    text = os.environ.get("EMBEDPIPE_CACHE_GB") or str(CACHE_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise UsageError(f"EMBEDPIPE_CACHE_GB must be a number of gigabytes >= 0, got {text!r}")
    return int(limit * 1e9)


@functools.cache
def usable_cores() -> int:
    """Return how many cores this process may use, given its CPU affinity and its container's limit."""
    import joblib  # slow to import

    return int(joblib.cpu_count())
