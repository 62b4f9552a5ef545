"""The log-loss is scikit-learn's, also where a probability is 0."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from embedpipe.statistics import log_losses


def test_log_loss_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    shares, y = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    shares[::5] = np.eye(4)[rng.integers(0, 4, 10)]  # certain, and often wrong
    assert (shares[np.arange(50), y] == 0).any()
    assert log_losses(shares, y).mean() == pytest.approx(metrics.log_loss(y, shares, labels=range(4)), rel=1e-12)


@pytest.mark.parametrize(
    ("probability", "loss"), [(0.0, 36.04365), (1e-300, 36.04365), (1e-3, 6.907755), (1.0, 2.2e-16)]
)
def test_probabilities_are_clipped_at_the_precision_of_float64(probability: float, loss: float) -> None:
    assert log_losses([[probability, 1 - probability]], [0]).tolist() == [pytest.approx(loss, rel=0.01)]
