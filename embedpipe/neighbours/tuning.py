"""How many cells a query must search, chosen by the recall of some rows and measured on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from embedpipe.neighbours.approximate import NearRows, Tuning
from embedpipe.neighbours.cells import centroid_costs, nearest_cells, padded
from embedpipe.neighbours.exact import Metric, Rows, Scores, Vectors, nearest_rows, normalised, without_itself

#: Candidates per neighbour: the first number with which the target can be reached is used.
CANDIDATES = (2, 4, 8, 16, 32, 64)
#: Share of the calibration rows whose nearest centroid is closer than the gate.
GATE_QUANTILE = 0.998
#: Above the cost of every centroid.
NO_GATE = float(np.finfo(np.float32).max)
#: Number of rows that are queries, for a target below 0.99; for a higher one there are more, up to the second number.
SAMPLE, MOST_SAMPLE = 1000, 10_000
#: A doubling of the probes that adds less recall than this does not lead to the target.
LEAST_GAIN = 0.0005
#: Number of samples on which a choice may fall short before the last is taken.
ATTEMPTS = 4
#: Quantile of the normal distribution for a one-sided bound of 95 %.
Z = 1.6449


@dataclass(frozen=True)
class Recall:
    """Measured share of the k nearest rows that a search finds.

    Attributes
    ----------
    k : int
    mean : float
    at_least : float
        Lower end of the one-sided 95 % confidence interval.
    rows : int
        Number of rows that were queries; they had no part in choosing the probes.
    """

    k: int
    mean: float
    at_least: float
    rows: int


class _Sample:
    """Rows as queries, with the scores of their exact neighbours."""

    def __init__(self, rows: Vectors, chosen: Rows, k: int, metric: Metric, n_jobs: int | None) -> None:
        self.chosen, self.metric, self.n_jobs = chosen, metric, n_jobs
        values = np.asarray(rows[chosen], np.float32)
        self.queries = normalised(values) if metric == "cosine" else values
        self.scores, _ = without_itself(*nearest_rows(self.queries, rows, k + 1, metric, n_jobs), chosen)

    def shares(self, search: NearRows, k: int) -> Scores:
        """Return for each query the share of its k nearest rows that a search finds; a copy is as good."""
        found, _ = without_itself(*search.search(self.queries, k + 1, self.n_jobs), self.chosen)
        worst = self.scores[:, k - 1 : k]
        close = 1e-12 * np.abs(worst)
        good = found >= worst - close if self.metric == "cosine" else found <= worst + close
        shares: Scores = good.mean(axis=1)
        return shares


def lower_bound(shares: Scores, z: float = Z) -> float:
    """Return a lower confidence bound of the mean of shares in [0, 1].

    One more query that finds nothing is counted, so that a sample without a miss does not promise a recall of 1.
    """
    counted = np.append(shares, 0.0)
    return max(0.0, float(counted.mean() - z * counted.std(ddof=1) / len(counted) ** 0.5))


def measured(shares: Scores, k: int) -> Recall:
    """Return the recall of a sample."""
    return Recall(k, float(shares.mean()), lower_bound(shares), len(shares))


def measure_recall(
    search: NearRows,
    rows: Vectors,
    metric: Metric,
    k: int,
    count: int = SAMPLE,
    seed: int = 0,
) -> Recall:
    """Measure the recall of a search on rows that are drawn at random.

    Parameters
    ----------
    search : NearRows
    rows : float32 array (n_rows, dim), or a memory map
        Those of the search.
    metric : str
    k : int
        Number of neighbours, below ``n_rows``.
    count : int
        Number of rows to draw.
    seed : int
    """
    drawn = np.random.default_rng(seed).choice(len(rows), min(count, len(rows)), replace=False)
    return measured(_Sample(rows, np.sort(drawn), k, metric, None).shares(search, k), k)


def tune(
    rows: Vectors,
    metric: Metric,
    cells: Any,
    target: float,
    k: Sequence[int] = (10,),
    n_jobs: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Tuning, Recall]:
    """Choose how a search uses the cells, and measure its recall.

    The calibration rows decide: probes are the fewest with which the lower bound of their recall reaches the target,
    with a margin, so that the bound measured on other rows reaches it too in 95 % of the cases. If it does not, there
    are half as many probes more, and new rows to measure on.

    Parameters
    ----------
    rows : float32 array (n_rows, dim), or a memory map
    metric : str
    cells : faiss.IndexIVFScalarQuantizer
        All rows, under their numbers.
    target : float
        In (0, 1].
    k : sequence of int
        Numbers of neighbours, ascending. The recall is that of the first.
    n_jobs : int, optional
    advance : callable
        Called after each measurement of a recall.

    Returns
    -------
    tuning : Tuning
    recall : Recall
        On rows that had no part in the choice.
    """
    every = int(cells.nlist)
    sizes = tuple(size for size in k if size < len(rows)) or (1,)
    count = min(int(np.clip(10 / max(1e-9, 1 - target), SAMPLE, MOST_SAMPLE)), len(rows) // 2)
    if not count:
        return Tuning(sizes, (every,) * len(sizes), CANDIDATES[-1], NO_GATE), Recall(sizes[0], 1.0, 0.0, 0)
    order = np.random.default_rng(0).permutation(len(rows))
    # The shares of a query's many neighbours vary less, so fewer queries do.
    draws = [order[: count if size == sizes[0] else -(-count // 4)] for size in sizes]
    calibration = {
        size: _Sample(rows, np.sort(drawn), size, metric, n_jobs) for size, drawn in zip(sizes, draws, strict=True)
    }
    near = nearest_cells(cells, padded(calibration[sizes[0]].queries, metric), 1, n_jobs)
    gate = float(np.quantile(centroid_costs(near, metric), GATE_QUANTILE))

    def shares(size: int, probes: int, candidates: int) -> Scores:
        # Without the gate, as its own quantile would decide for these rows.
        search = NearRows(rows, metric, cells, Tuning((size,), (probes,), candidates, NO_GATE))
        found = calibration[size].shares(search, size)
        advance()
        return found

    probes: list[int] = []
    candidates = CANDIDATES[0]
    for size in sizes:
        fewest = -(-2 * size * every // len(rows))  # with fewer, cells hold too few rows, and the search is exact
        chosen, candidates = _choose(partial(shares, size), (fewest, every), target, candidates)
        probes.append(chosen)
    tuning = Tuning(sizes, tuple(probes), candidates, gate)
    for attempt in range(1, ATTEMPTS + 1):
        held_out = np.sort(order[count * attempt : count * (attempt + 1)])
        sample = _Sample(rows, held_out, sizes[0], metric, n_jobs)
        recall = measured(sample.shares(NearRows(rows, metric, cells, tuning), sizes[0]), sizes[0])
        advance()
        if recall.at_least >= target or attempt == ATTEMPTS or count * (attempt + 2) > len(rows):
            break
        tuning = replace(tuning, probes=tuple(min(every, -(-3 * each // 2)) for each in tuning.probes))
    return tuning, recall


def _choose(
    shares: Callable[[int, int], Scores], limits: tuple[int, int], target: float, candidates: int
) -> tuple[int, int]:
    """Return the fewest probes that reach the target, and the candidates per neighbour; all cells if none does."""
    fewest, every = limits

    def reaches(found: Scores) -> bool:
        return lower_bound(found, Z * (1 + 2**0.5)) >= target

    for more in (each for each in CANDIDATES if each >= candidates):
        probes, before = min(fewest, every), 0.0
        while True:
            found = shares(probes, more)
            if reaches(found) or probes == every:
                break
            if found.mean() - before < LEAST_GAIN and found.mean() < target:
                break
            probes, before = min(2 * probes, every), float(found.mean())
        if reaches(found):
            low = max(fewest - 1, probes // 2)
            while probes - low > max(1, probes // 16):
                middle = (low + probes) // 2
                low, probes = (low, middle) if reaches(shares(middle, more)) else (middle, probes)
            return probes, more
        if found.mean() == 1:
            return every, more
    return every, CANDIDATES[-1]
