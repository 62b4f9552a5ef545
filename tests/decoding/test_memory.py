"""Images that are decoded at the same time share a limit of memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from oddities import encode, picture, png
from picture_files import tiff

from embedpipe.decoding.memory import Memory, decoded_size


def test_threads_never_hold_more_than_the_limit_but_for_one_that_is_larger() -> None:
    memory, held, most, alone = Memory(100), [0], [0], [True]
    lock = threading.Lock()

    def work(size: int) -> None:
        with memory.hold(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0] if size <= 100 else 0)
                alone[0] &= size <= 100 or held[0] == size
            with lock:
                held[0] -= size

    sizes = np.random.default_rng(0).integers(1, 60, 400).tolist() + [250] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, sizes))
    assert most[0] <= 100
    assert alone[0]


def test_sizes_are_read_from_headers() -> None:
    assert decoded_size(encode(picture(), "JPEG")) == 0
    assert decoded_size(png(10_000, 9_000, b"")) == 10_000 * 9_000 * 16
    assert decoded_size(tiff([bytes(9)], (5_000, 4_000), t258=(16,) * 5, t277=5)) == 5_000 * 4_000 * 48
    assert decoded_size(b"nothing") == 0
    assert decoded_size(picture()) == 0
