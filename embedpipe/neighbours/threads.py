"""One FAISS call at a time, on as many threads as asked for, and OpenMP left as it was found.

FAISS gives each calling thread a team of OpenMP threads of its own: eight callers on two cores ran at a tenth of one
caller's rate, and behind a lock at its full rate. Where torch was imported first, its OpenMP and FAISS's share their
settings: after ``faiss.omp_set_num_threads(1)`` torch ran on one thread too. And a forked child that uses the parent's
threads hangs. `benchmarks/openmp.py` shows all three.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_forked = False


@contextmanager
def faiss_alone(n_jobs: int | None = None) -> Iterator[Any]:
    """Yield the ``faiss`` module for calls that no other thread makes at the same time.

    Parameters
    ----------
    n_jobs : int, optional
        OpenMP threads to use; all that OpenMP is set to where None, and all cores where -1.
    """
    import faiss

    with _lock:
        before = faiss.omp_get_max_threads()
        wanted = 1 if _forked else before if n_jobs is None else n_jobs if n_jobs > 0 else os.cpu_count() or 1
        faiss.omp_set_num_threads(wanted)
        try:
            yield faiss
        finally:
            faiss.omp_set_num_threads(before)


def _after_fork() -> None:
    """Make FAISS usable in a forked child: a lock that nobody holds, and no team of threads."""
    global _lock, _forked
    _lock = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
