"""One BLAS thread for solvers that make many small products.

On more threads each product waits for the slowest of them: beside another busy process, L-BFGS took three to ten times
as long and LAPACK's eigh seven times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

#: Bytes of a matrix below which a solver's products are so small that one thread makes them as well.
SMALL = 1 << 27

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
