"""Why does `embedpipe/neighbours/threads.py` allow one FAISS call at a time, and restore OpenMP's settings?

    python benchmarks/openmp.py [--seconds 2] [--question NAME...] [--json FILE]

Every number is a ratio of rates measured in turns in one process, the median of several turns. Each question runs in a
process of its own, because OpenMP's state lasts, and is measured twice: the wheels of torch and FAISS each contain an
OpenMP library, and the order of the imports decides which one FAISS uses. The machine needs at least two cores, idle:
waiting OpenMP threads spin, and beside other work that alone costs more than anything measured here. The table shows
how busy the machine was.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, run_self, write_json

from embedpipe.neighbours import faiss_alone

ROUNDS, CALLERS, HANGS_AFTER = 5, 8, 20.0
DIM, ROWS, QUERIES = 1280, 20_000, 128
ORDERS = (("torch", "faiss"), ("faiss", "torch"))

#: Returns a context manager around a call of FAISS.
Guard = Callable[[], Any]
GUARDS: dict[str, Guard] = {
    "unguarded": nullcontext,
    "faiss_alone()": faiss_alone,
    "faiss_alone(1)": partial(faiss_alone, 1),
}


def searcher() -> Callable[[Guard], None]:
    """Return a function that searches once, inside a guard."""
    import faiss

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    queries = rows[:QUERIES].copy()

    def search(guard: Guard) -> None:
        with guard():
            faiss.knn(queries, rows, 10, metric=faiss.METRIC_INNER_PRODUCT)

    return search


def forward() -> None:
    """Compute a few matrix products of the size of those in a small network."""
    import torch

    X = torch.ones(512, 512)
    for _ in range(10):
        X = torch.relu(X @ X / 512 + 1)


def rate(work: Callable[[], object], seconds: float) -> float:
    """Return how often per second one caller completes a call, measured for about ``seconds``."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += 1
    return done / (time.perf_counter() - start)


def rates(works: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the rate of each of several concurrent calls, each in a thread."""
    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(partial(rate, seconds=seconds), works))


def busy() -> float:
    """Return the share of the cores in use by other processes, over one second; NaN where /proc is missing."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")

    def ticks() -> tuple[int, int]:
        values = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    total, idle = ticks()
    time.sleep(1)
    total_after, idle_after = ticks()
    return 1 - (idle_after - idle) / (total_after - total)


def callers(seconds: float) -> dict[str, float]:
    """Return the rate of searches of many concurrent callers, relative to that of one caller."""
    search = searcher()
    ratios: dict[str, list[float]] = {}
    search(nullcontext)
    for _ in range(ROUNDS):
        alone = rate(partial(search, nullcontext), seconds)
        for name in ("unguarded", "faiss_alone()"):
            together = rates([partial(search, GUARDS[name])] * CALLERS, seconds)
            ratios.setdefault(f"{CALLERS} callers, {name}", []).append(sum(together) / alone)
    return {name: statistics.median(values) for name, values in ratios.items()}


def settings(seconds: float) -> dict[str, float]:
    """Return torch's rate after FAISS was set to one thread, relative to the rate before."""
    import faiss
    import torch

    search = searcher()
    threads = torch.get_num_threads()
    ratios: dict[str, list[float]] = {}

    def by_hand() -> None:
        faiss.omp_set_num_threads(1)
        search(nullcontext)

    forward()
    for _ in range(ROUNDS):
        for name, work in (
            ("torch after omp_set_num_threads(1)", by_hand),
            ("torch after faiss_alone(1)", partial(search, GUARDS["faiss_alone(1)"])),
        ):
            before = rate(forward, seconds / 2)
            work()
            ratios.setdefault(name, []).append(rate(forward, seconds / 2) / before)
            ratios.setdefault(f"{name}: threads", []).append(torch.get_num_threads())
            faiss.omp_set_num_threads(threads)
    return {name: statistics.median(values) for name, values in ratios.items()}


def forked(seconds: float) -> dict[str, float | None]:
    """Return the seconds of a search in a forked child after a search in its parent; None if it had to be killed."""
    search = searcher()
    times: dict[str, float | None] = {}
    for name in ("unguarded", "faiss_alone()"):
        search(GUARDS[name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what is measured
            child = multiprocessing.get_context("fork").Process(target=search, args=(GUARDS[name],))
            start = time.perf_counter()
            child.start()
        child.join(HANGS_AFTER)
        times[f"child's search, {name}"] = time.perf_counter() - start if child.exitcode == 0 else None
        child.kill()
        child.join()
    return times


def beside(seconds: float) -> dict[str, float]:
    """Return the rates of a network and of a search in concurrent threads, relative to their rates alone."""
    search = searcher()
    ratios: dict[str, list[float]] = {}
    forward()
    search(nullcontext)
    for _ in range(ROUNDS):
        torch_alone = rate(forward, seconds / 2)
        search_alone = rate(partial(search, nullcontext), seconds / 2)
        for name, guard in GUARDS.items():
            both = rates([forward, partial(search, guard)], seconds)
            shares = both[0] / torch_alone, both[1] / search_alone
            for work, share in zip(("torch", "search"), shares, strict=True):
                ratios.setdefault(f"{work} beside the other, {name}", []).append(share)
    return {name: statistics.median(values) for name, values in ratios.items()}


QUESTIONS: dict[str, tuple[Callable[[float], Any], str]] = {
    "callers": (callers, "searches per second, relative to one caller"),
    "settings": (settings, "torch's rate relative to its rate before, and its number of threads afterwards"),
    "forked": (forked, f"seconds; `hangs`: killed after {HANGS_AFTER:g} s"),
    "beside": (beside, "rate relative to its rate alone"),
}


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds of each measurement (default: 2)")
    parser.add_argument(
        "--question", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="questions (default: all)"
    )
    parser.add_argument("--order", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.order:
        for module in options.order:
            importlib.import_module(module)
        print(json.dumps(QUESTIONS[options.question[0]][0](options.seconds)))
        return
    print(f"{os.cpu_count()} cores, medians of {ROUNDS} turns")
    print(f"{'':<50}" + "".join(f"{first + ' first':>14}" for first, _ in ORDERS))
    results = {}
    for question in options.question:
        print(f"{question} ({QUESTIONS[question][1]})")
        answers, busy_shares = [], []
        for order in ORDERS:
            busy_shares.append(busy())
            arguments = ("--question", question, "--seconds", options.seconds, "--order", *order)
            answers.append(run_self(__file__, *arguments))
        results[question] = {f"{first} first": answer for (first, _), answer in zip(ORDERS, answers, strict=True)}
        print(f"  {'cores in use by other work just before':<48}" + "".join(f"{share:>14.0%}" for share in busy_shares))
        for name in answers[0]:
            values = ("hangs" if answer[name] is None else f"{answer[name]:.2f}" for answer in answers)
            print(f"  {name:<48}" + "".join(f"{value:>14}" for value in values), flush=True)
    write_json(options, results)


if __name__ == "__main__":
    main()
