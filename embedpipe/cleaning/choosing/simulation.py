"""What choosing gains over random choices, simulated on rows whose labels are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Advance, uncounted
from embedpipe.cleaning.choosing.choice import choose_rows
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.evaluation.differences import Z95
from embedpipe.heads.registry import make_estimator
from embedpipe.statistics import Estimate, corrected_interval, unseen_share

#: Labelled rows that a simulation needs, and uses.
LEAST_SIMULATED, MOST_SIMULATED = 200, 4000
DRAWS, ROUNDS = 5, 3


def simulate(
    Z: npt.NDArray[np.float32], y: npt.NDArray[np.int64], seed: int, advance: Advance = uncounted
) -> tuple[Estimate | None, dict[int, tuple[float, float]]]:
    """Label some of the labelled rows in rounds, chosen and at random, and measure heads on a third of the rows.

    Returns the gain over all rounds and draws, with the interval of repeated random splits (Nadeau and Bengio, 2003),
    and the mean accuracies of each number of labels.
    """
    classes = len(np.unique(y))
    budgets = [classes * 4 * 2**number for number in range(ROUNDS)]
    accuracies: dict[int, list[tuple[float, float]]] = {budget: [] for budget in budgets}
    gains = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([seed, draw])
        order = rng.permutation(len(y))[:MOST_SIMULATED]
        test, pool = order[: len(order) // 3], np.sort(order[len(order) // 3 :])
        ours, others, shuffled = np.empty(0, np.int64), np.empty(0, np.int64), rng.permutation(pool)
        differences = []
        for budget in budgets:
            if budget > len(pool) // 2:
                break
            free = np.setdiff1d(pool, ours)
            ours = np.concatenate([ours, choose_rows(Z, y, free, ours, budget - len(ours), draw)[0]])
            others = shuffled[:budget]
            pair = (_accuracy(Z, y, ours, test), _accuracy(Z, y, others, test))
            accuracies[budget].append(pair)
            differences.append(pair[0] - pair[1])
            advance(1)
        if differences:
            gains.append(float(np.mean(differences)))
    if len(gains) < 2:
        return None, {}
    means = {
        budget: (float(np.mean([pair[0] for pair in pairs])), float(np.mean([pair[1] for pair in pairs])))
        for budget, pairs in accuracies.items()
        if pairs
    }
    # Draws of the same gain, such as none where all is easy, are no certainty: other rows may be of another kind.
    least = unseen_share(min(len(y), MOST_SIMULATED)) / Z95
    return Estimate(*corrected_interval(gains, ratio=0.5, min_standard_error=least)), means


def _accuracy(
    Z: npt.NDArray[np.float32], y: npt.NDArray[np.int64], labelled: npt.NDArray[np.int64], test: npt.NDArray[np.int64]
) -> float:
    if len(np.unique(y[labelled])) < 2:
        return float((y[test] == y[labelled[0]]).mean())
    _, head = make_estimator("logreg", "classification", len(labelled))
    return float((fit_on(head, Z[labelled], y[labelled]).predict(Z[test]) == y[test]).mean())
