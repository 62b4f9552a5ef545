"""Batches in flight: results in order, and no thread left after an error or an early stop."""

from __future__ import annotations

import threading
import time

import pytest

from embedpipe.embedding.loop import _in_flight


def workers() -> int:
    return sum(thread.name.startswith("embedpipe-forward") for thread in threading.enumerate())


def test_two_batches_run_at_once_and_return_in_order() -> None:
    active, most = [0], [0]
    lock = threading.Lock()

    def work(job: list[int]) -> list[int]:
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        time.sleep(0.02 if job[0] % 2 else 0.001)
        with lock:
            active[0] -= 1
        return job

    numbers = [n for part in _in_flight(iter([[n] for n in range(20)]), work) for n in part]
    assert numbers == list(range(20))
    assert most[0] == 2
    assert not workers()


def test_error_in_a_batch_ends_the_threads() -> None:
    def work(job: list[int]) -> list[int]:
        if job == [3]:
            raise RuntimeError("the device is gone")
        return job

    results = _in_flight(iter([[n] for n in range(10)]), work)
    assert [next(results) for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(RuntimeError, match="the device is gone"):
        next(results)
    assert not workers()


def test_closed_loop_takes_no_more_jobs() -> None:
    taken = []

    def jobs():
        for number in range(100):
            taken.append(number)
            yield [number]

    results = _in_flight(jobs(), lambda job: job)
    assert next(results) == [0]
    results.close()
    assert len(taken) <= 4
    assert not workers()
