"""Threads that do not stand in each other's way.

Solvers that make many small products want one BLAS thread. On more, each product waits for the slowest of them: beside
another busy process, L-BFGS took three to ten times as long and LAPACK's eigh seven times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

#: Bytes of a matrix below which a solver's products are so small that one thread makes them as well.
SMALL = 1 << 27


def with_jobs(estimator: Any, n_jobs: int | None) -> Any:
    """Return the estimator with as many threads for all parts of it that are ours and have a parameter for that."""
    parts = {"": estimator, **estimator.get_params()}
    # Some of scikit-learn's have it for show, and warn.
    names = [
        name
        for name in parts
        if name.split("__")[-1] == "n_jobs"
        and type(parts["__".join(name.split("__")[:-1])]).__module__.startswith("embedpipe")
    ]
    return estimator.set_params(**dict.fromkeys(names, n_jobs))


_lock = threading.Lock()
_inside = 0
_limits: threadpool_limits | None = None


@contextmanager
def one_blas_thread(wanted: bool = True) -> Iterator[None]:
    """Limit BLAS to one thread; the last of several callers to leave puts the process's setting back."""
    global _inside, _limits
    if not wanted:
        yield
        return
    with _lock:
        _inside += 1
        if _limits is None:
            _limits = threadpool_limits(1, user_api="blas")
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside and _limits is not None:
                _limits.restore_original_limits()
                _limits = None
