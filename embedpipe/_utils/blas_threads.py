"""One BLAS thread for solvers that make many small matrix products.

On several threads, each small product waits for the slowest thread: beside another busy process, L-BFGS took three to
ten times as long and LAPACK's eigh seven times.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from threadpoolctl import ThreadpoolController

#: Matrices below this many bytes are multiplied as fast by one thread.
SMALL = 1 << 27


def with_jobs(estimator: Any, n_jobs: int | None) -> Any:
    """Set ``n_jobs`` of an estimator and of those of its parts that are embedpipe's; return the estimator."""
    parts = {"": estimator, **estimator.get_params()}
    # Some of scikit-learn's estimators accept n_jobs, ignore it and warn.
    names = [
        name
        for name in parts
        if name.split("__")[-1] == "n_jobs"
        and type(parts["__".join(name.split("__")[:-1])]).__module__.startswith("embedpipe")
    ]
    return estimator.set_params(**dict.fromkeys(names, n_jobs))


_lock = threading.Lock()
_inside = 0
_limits: Any = None


@contextmanager
def one_blas_thread(wanted: bool = True) -> Iterator[None]:
    """Limit BLAS to one thread inside the block.

    The limit is the process's: when blocks of several threads overlap, the last to end restores the setting.
    """
    global _inside, _limits
    if not wanted:
        yield
        return
    with _lock:
        _inside += 1
        if _limits is None:
            _limits = _loaded_libraries(len(sys.modules)).limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _limits is not None:
                _limits.restore_original_limits()
                _limits = None


@lru_cache(maxsize=1)
def _loaded_libraries(modules: int) -> ThreadpoolController:
    """Return a controller of the libraries that are loaded with this number of modules.

    Finding them takes milliseconds, as long as the fit of a small estimator.
    """
    return ThreadpoolController()
