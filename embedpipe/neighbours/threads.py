"""`faiss_alone`: one FAISS call at a time, with a number of threads, and OpenMP's settings restored afterwards.

FAISS starts a team of OpenMP threads for every calling thread: eight callers on two cores had a tenth of the throughput
of one caller, and all of it with a lock. If torch is imported first, its OpenMP and FAISS's share their settings: after
``faiss.omp_set_num_threads(1)`` torch used one thread too. A forked child that uses the parent's threads hangs.
`benchmarks/openmp.py` shows all three.
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
    """Yield the ``faiss`` module, with a lock held so that no other thread calls it at the same time.

    Parameters
    ----------
    n_jobs : int, optional
        Number of OpenMP threads. None: the current setting. -1: all cores.
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
    """Make FAISS usable in a forked child: a new lock, and one thread only."""
    global _lock, _forked
    _lock = threading.Lock()
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
