"""Batches in flight come back in order, whatever they take; what fails or stops early leaves no thread."""

from __future__ import annotations

import threading
import time

import pytest

from embedpipe.embedding.loop import _in_flight


def workers() -> int:
    return sum(thread.name.startswith("embedpipe-forward") for thread in threading.enumerate())


def test_batches_come_back_in_order_and_two_are_at_work() -> None:
    at_work, most = [0], [0]
    lock = threading.Lock()

    def work(job: list[int]) -> list[int]:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.02 if job[0] % 2 else 0.001)
        with lock:
            at_work[0] -= 1
        return job

    found = [one for part in _in_flight(iter([[n] for n in range(20)]), work) for one in part]
    assert found == list(range(20))
    assert most[0] == 2
    assert not workers()


def test_an_error_in_a_batch_is_raised_and_ends_the_threads() -> None:
    def work(job: list[int]) -> list[int]:
        if job == [3]:
            raise RuntimeError("the device is gone")
        return job

    found = _in_flight(iter([[n] for n in range(10)]), work)
    assert [next(found) for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(RuntimeError, match="the device is gone"):
        next(found)
    assert not workers()


def test_a_loop_that_is_left_early_takes_no_more_jobs() -> None:
    taken = []

    def jobs():
        for number in range(100):
            taken.append(number)
            yield [number]

    found = _in_flight(jobs(), lambda job: job)
    assert next(found) == [0]
    found.close()
    assert len(taken) <= 4
    assert not workers()
