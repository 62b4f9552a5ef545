"""Intervals of a protocol whose metrics are means over the test rows, and differences between layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedpipe.evaluation.differences import (
    MAX_DRAWS,
    MAX_WEIGHTS,
    ComparisonWithBest,
    differences_of,
    normal_posterior,
)
from embedpipe.statistics import Difference, Estimate, draw_counts, from_draws, unseen_share

Floats = npt.NDArray[np.float64]


def compare_layers(
    layers: Sequence[Mapping[str, Floats]], groups: npt.NDArray[np.int64], margin: float
) -> list[tuple[dict[str, Estimate], Difference | None]]:
    """Return the estimates of each layer, and its difference from the best by the first metric, for which that is None.

    Intervals are percentile bootstraps over the test rows, those of differences paired; rows of a group are drawn
    together, and what is trained on, or searched, is taken as given. None is narrower than so many rows allow: each
    contains what `embedpipe.statistics.unseen_share` of rows of value 0 or 1 would make of it.

    Parameters
    ----------
    layers : sequence of dict
        Metric -> value of each test row, float64 (n,) from 0 to 1, larger is better; the same metrics for all.
    groups : array (n,)
    margin : float
        Half the width of the region of practical equivalence.
    """
    names = [*layers[0]]
    values = np.stack([each[name] for each in layers for name in names], axis=1)
    drawn = _means(values, groups).reshape(-1, len(layers), len(names))
    means = values.mean(axis=0).reshape(len(layers), len(names))
    units = len(np.unique(groups))
    unseen = unseen_share(units)
    best = int(np.argmax(means[:, 0]))
    estimates = []
    for i in range(len(layers)):
        ends: dict[str, Estimate] = {}
        for j, name in enumerate(names):
            value = float(means[i, j])
            within = value * (1 - unseen), value * (1 - unseen) + unseen
            interval = from_draws(value, drawn[:, i, j], units=units, within=within)
            ends[name] = Estimate(value, max(interval.low, 0.0), min(interval.high, 1.0))
        estimates.append(ends)
    others = [i for i in range(len(layers)) if i != best]
    tests = []
    for i in others:
        value = float(means[i, 0] - means[best, 0])
        within = value * (1 - unseen) - unseen, value * (1 - unseen) + unseen
        paired = from_draws(value, drawn[:, i, 0] - drawn[:, best, 0], units=units, within=within)
        estimate = Estimate(value, paired.low, paired.high)
        tests.append(ComparisonWithBest(estimate, paired.p, normal_posterior(estimate, margin), "paired bootstrap"))
    differences = dict(zip(others, differences_of(tests, True, margin), strict=True))
    return [(each, differences.get(i)) for i, each in enumerate(estimates)]


def _means(values: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Return the means of columns in draws of rows, float64 (n_draws, n_columns)."""
    generator, step = np.random.default_rng(0), max(1, MAX_WEIGHTS // 4 // len(values))
    parts = []
    for start in range(0, MAX_DRAWS, step):
        counts = draw_counts(len(values), min(step, MAX_DRAWS - start), groups=groups, seed=generator)
        parts.append(counts @ values / counts.sum(axis=1, keepdims=True))
    return np.concatenate(parts)
