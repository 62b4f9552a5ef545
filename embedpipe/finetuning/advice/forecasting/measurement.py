"""Measured accuracies as observations on the logit scale, with the variance of their error."""

from __future__ import annotations

import numpy as np

from embedpipe.finetuning.advice.forecasting.gain_model import LEAST, Observed, Setting, logit

#: Spread of the gain between draws of labels that is expected before runs show it.
EXPECTED_SPREAD = 0.015
#: Share of test rows on which probe and network are expected to differ.
EXPECTED_DISAGREEMENT = 0.1


def expected_variance(seeds: int, test_rows: int) -> float:
    """Return the variance of the mean gain over seeds, as it is expected before the runs."""
    return EXPECTED_SPREAD**2 / seeds + EXPECTED_DISAGREEMENT / test_rows


def observe(
    probe: Setting, network: float, variance: float, test_rows: int, data: str = "", backbone: str = ""
) -> Observed:
    """Return the gain of a network over a probe on the logit scale.

    Parameters
    ----------
    probe : Setting
    network : float
        Its accuracy.
    variance : float
        That of the difference of the accuracies.
    test_rows : int
        A share of so many rows has no logit at 0 and 1: half a row is kept from both.
    data, backbone : str
        See `Observed`.
    """
    edge = max(LEAST, 0.5 / test_rows)
    kept = float(np.clip(network, edge, 1 - edge))
    gain = float(logit(kept) - logit(np.clip(probe.accuracy, edge, 1 - edge)))
    return Observed(probe, gain, variance / (kept * (1 - kept)) ** 2, data, backbone)
