"""`faiss_alone`: restored OpenMP settings, concurrent threads, forked children."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from embedpipe.neighbours import faiss_alone, nearest_rows, normalised

SECONDS = 10

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks need POSIX")
forking = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Set OpenMP to two threads, independently of the machine and the environment."""
    before, torch_before = faiss.omp_get_max_threads(), torch.get_num_threads()
    faiss.omp_set_num_threads(2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(torch_before)
    faiss.omp_set_num_threads(before)


def threads() -> tuple[int, int]:
    return faiss.omp_get_max_threads(), torch.get_num_threads()


#: Each wheel brings an OpenMP. If torch is imported first, FAISS shares torch's OpenMP and its settings.
IN_TORCH = """
import torch, faiss
from embedpipe.neighbours import faiss_alone

torch.get_num_threads()  # the first time, torch sets it up
torch.set_num_threads(2)
faiss.omp_set_num_threads(1)
shared = torch.get_num_threads() == 1
torch.set_num_threads(2)
faiss.omp_set_num_threads(2)
with faiss_alone(1):
    inside = torch.get_num_threads()
try:
    with faiss_alone(1):
        raise RuntimeError
except RuntimeError:
    pass
print(shared, inside, torch.get_num_threads(), faiss.omp_get_max_threads())
"""


@pytest.mark.long
def test_thread_settings_are_restored_in_torch() -> None:
    done = subprocess.run([sys.executable, "-c", IN_TORCH], capture_output=True, text=True, check=True)
    shared, inside, *after = done.stdout.split()
    assert after == ["2", "2"]
    assert inside == ("1" if shared == "True" else "2")


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("n_jobs", "inside"), [(None, 2), (1, 1), (3, 3), (-1, os.cpu_count())])
def test_thread_settings_apply_inside_and_are_restored(n_jobs: int | None, inside: int) -> None:
    with faiss_alone(n_jobs) as module:
        assert module is faiss
        assert faiss.omp_get_max_threads() == inside
    assert threads() == (2, 2)


@pytest.mark.usefixtures("two_threads")
def test_exception_restores_settings_and_releases_the_lock() -> None:
    with pytest.raises(RuntimeError, match="FAISS says no"), faiss_alone(1):
        raise RuntimeError("FAISS says no")
    assert threads() == (2, 2)
    with faiss_alone(1):
        assert faiss.omp_get_max_threads() == 1


def problem() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return normalised(rng.standard_normal((40, 64))), normalised(rng.standard_normal((3000, 64)))


def test_only_one_thread_holds_the_lock() -> None:
    inside, most = 0, 0
    start = threading.Barrier(4)

    def enter(_: int) -> None:
        nonlocal inside, most
        start.wait(SECONDS)
        for _ in range(50):
            with faiss_alone():
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))
    assert most == 1


@pytest.mark.usefixtures("two_threads")
def test_concurrent_searches_give_the_same_results() -> None:
    queries, rows = problem()
    scores, result = nearest_rows(queries, rows, 7, "cosine")
    jobs = [None, 1, 2, -1] * 5
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n_jobs: nearest_rows(queries, rows, 7, "cosine", n_jobs), jobs))
    for other_scores, other in answers:
        assert (other == result).all()
        assert (other_scores == scores).all()
    assert threads() == (2, 2)


def send_search(queries: Any, rows: Any, answer: Any) -> None:
    """Search in a child process; send the results and the number of threads."""
    with faiss_alone(2):
        used = faiss.omp_get_max_threads()
    answer.send((nearest_rows(queries, rows, 7, "cosine", 2), used))


def in_forked_child(work: Callable[..., None], *arguments: Any) -> Any:
    """Return what a forked child sends; fail if it sends nothing in time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(*arguments, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        assert ours.poll(SECONDS), "the child hangs"
        answer = ours.recv()
        child.join(SECONDS)
        assert child.exitcode == 0
        return answer
    finally:
        child.kill()
        child.join()


@needs_fork
@forking
@pytest.mark.usefixtures("two_threads")
def test_forked_child_can_search() -> None:
    queries, rows = problem()
    scores, result = nearest_rows(queries, rows, 7, "cosine", 2)
    (child_scores, child_found), used = in_forked_child(send_search, queries, rows)
    assert used == 1
    assert (child_found == result).all()
    assert (child_scores == scores).all()
    # The parent still uses all its threads.
    with faiss_alone(2):
        assert faiss.omp_get_max_threads() == 2


@needs_fork
@forking
@pytest.mark.usefixtures("two_threads")
def test_child_forked_during_a_search_does_not_hang() -> None:
    queries, rows = problem()
    _, result = nearest_rows(queries, rows, 7, "cosine")
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with faiss_alone():
            inside.set()
            leave.wait(2 * SECONDS)

    holder = threading.Thread(target=stay)
    holder.start()
    try:
        assert inside.wait(SECONDS)
        (_, child_found), _ = in_forked_child(send_search, queries, rows)
        assert not leave.is_set()
        assert holder.is_alive()
    finally:
        leave.set()
        holder.join()
    assert (child_found == result).all()
