"""Rows far from all others: outliers, and test rows that no training row resembles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
#: From the median absolute deviation to the standard deviation of a normal distribution.
MAD_TO_DEVIATION = 1.4826


def robust_z(values: Floats, usual: Floats | None = None) -> Floats:
    """Return how many robust standard deviations values are above the median of the usual ones, by default of all.

    0 if most of the usual ones are equal. The deviation is the median absolute one, which a tenth of outliers hardly
    moves (Rousseeuw and Croux, 1993).
    """
    usual = values if usual is None else usual
    if not len(usual):
        return np.zeros(len(values))
    median = np.median(usual)
    deviation = MAD_TO_DEVIATION * np.median(np.abs(usual - median))
    z: Floats = (values - median) / deviation if deviation > 0 else np.zeros(len(values))
    return z
