"""Why does `embedpipe/neighbours/threads.py` keep FAISS to one call at a time, and put OpenMP's settings back?

    python benchmarks/openmp.py [--seconds 2]

Every figure is a ratio of rates measured in turns in one process, the median of several turns. Each question has a
process of its own, as OpenMP's state lasts; and is asked twice, as the two wheels bring an OpenMP library each, and
which one FAISS ends up with depends on which was imported first. At least two cores, and idle ones: waiting
OpenMP threads spin, and beside other work that alone costs more than anything here. The table says how busy it was.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import make_parser, write_json

from embedpipe.neighbours import faiss_alone

ROUNDS, CALLERS, HANGS_AFTER = 5, 8, 20.0
DIM, ROWS, QUERIES = 1280, 20_000, 128
ORDERS = (("torch", "faiss"), ("faiss", "torch"))

Door = Callable[[], Any]
DOORS: dict[str, Door] = {
    "bare": nullcontext,
    "faiss_alone()": faiss_alone,
    "faiss_alone(1)": partial(faiss_alone, 1),
}


def searcher() -> Callable[[Door], None]:
    """Return a function that searches once, behind a door."""
    import faiss

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    queries = rows[:QUERIES].copy()

    def search(door: Door) -> None:
        with door():
            faiss.knn(queries, rows, 10, metric=faiss.METRIC_INNER_PRODUCT)

    return search


def forward() -> None:
    """Run a few matrix products of the size that a small network has."""
    import torch

    X = torch.ones(512, 512)
    for _ in range(10):
        X = torch.relu(X @ X / 512 + 1)


def rate(work: Callable[[], object], seconds: float) -> float:
    """Return how often a second work is done, by one caller, for about so long."""
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        done += 1
    return done / (time.perf_counter() - start)


def rates(works: list[Callable[[], object]], seconds: float) -> list[float]:
    """Return the rate of each of several works that go on at once, each in a thread."""
    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(partial(rate, seconds=seconds), works))


def busy() -> float:
    """Return the share of the cores that other processes use, over a second; Linux only, elsewhere NaN."""
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
    """Many callers at once, over one caller's rate of searches."""
    search = searcher()
    ratios: dict[str, list[float]] = {}
    search(nullcontext)
    for _ in range(ROUNDS):
        alone = rate(partial(search, nullcontext), seconds)
        for name in ("bare", "faiss_alone()"):
            together = rates([partial(search, DOORS[name])] * CALLERS, seconds)
            ratios.setdefault(f"{CALLERS} callers, {name}", []).append(sum(together) / alone)
    return {name: statistics.median(values) for name, values in ratios.items()}


def settings(seconds: float) -> dict[str, float]:
    """Torch's rate after FAISS was set to one thread, over the rate before."""
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
            ("torch after faiss_alone(1)", partial(search, DOORS["faiss_alone(1)"])),
        ):
            before = rate(forward, seconds / 2)
            work()
            ratios.setdefault(name, []).append(rate(forward, seconds / 2) / before)
            ratios.setdefault(f"{name}: threads", []).append(torch.get_num_threads())
            faiss.omp_set_num_threads(threads)
    return {name: statistics.median(values) for name, values in ratios.items()}


def forked(seconds: float) -> dict[str, float | None]:
    """Seconds that a forked child takes for a search after its parent did one; None where it had to be killed."""
    search = searcher()
    taken: dict[str, float | None] = {}
    for name in ("bare", "faiss_alone()"):
        search(DOORS[name])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads: that is the question
            child = multiprocessing.get_context("fork").Process(target=search, args=(DOORS[name],))
            start = time.perf_counter()
            child.start()
        child.join(HANGS_AFTER)
        taken[f"child's search, {name}"] = time.perf_counter() - start if child.exitcode == 0 else None
        child.kill()
        child.join()
    return taken


def beside(seconds: float) -> dict[str, float]:
    """A thread that runs a network beside one that searches: the rate of each over its rate alone."""
    search = searcher()
    ratios: dict[str, list[float]] = {}
    forward()
    search(nullcontext)
    for _ in range(ROUNDS):
        torch_alone = rate(forward, seconds / 2)
        search_alone = rate(partial(search, nullcontext), seconds / 2)
        for name, door in DOORS.items():
            both = rates([forward, partial(search, door)], seconds)
            shares = both[0] / torch_alone, both[1] / search_alone
            for what, share in zip(("torch", "search"), shares, strict=True):
                ratios.setdefault(f"{what} beside the other, {name}", []).append(share)
    return {name: statistics.median(values) for name, values in ratios.items()}


QUESTIONS: dict[str, tuple[Callable[[float], Any], str]] = {
    "callers": (callers, "searches a second, over one caller's"),
    "settings": (settings, "torch's rate over its rate before, and the threads that it then has"),
    "forked": (forked, f"seconds; `hangs`: killed after {HANGS_AFTER:g} s"),
    "beside": (beside, "rate over its rate alone"),
}


def main() -> None:
    """Measure, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--question", choices=QUESTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--order", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.question:
        for module in options.order:
            importlib.import_module(module)
        print(json.dumps(QUESTIONS[options.question][0](options.seconds)))
        return
    print(f"{os.cpu_count()} cores, medians of {ROUNDS} turns")
    print(f"{'':<50}" + "".join(f"{first + ' first':>14}" for first, _ in ORDERS))
    results = {}
    for question, (_, unit) in QUESTIONS.items():
        print(f"{question} ({unit})")
        answers, others = [], []
        for order in ORDERS:
            command = [sys.executable, __file__, "--question", question, "--seconds", str(options.seconds)]
            command += ["--order", *order]
            others.append(busy())
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            answers.append(json.loads(done.stdout.splitlines()[-1]))
        results[question] = {f"{first} first": answer for (first, _), answer in zip(ORDERS, answers, strict=True)}
        print(f"  {'busy with other work just before':<48}" + "".join(f"{share:>14.0%}" for share in others))
        for name in answers[0]:
            values = ("hangs" if answer[name] is None else f"{answer[name]:.2f}" for answer in answers)
            print(f"  {name:<48}" + "".join(f"{value:>14}" for value in values), flush=True)
    write_json(options, results)


if __name__ == "__main__":
    main()
