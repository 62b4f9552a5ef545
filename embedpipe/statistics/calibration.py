"""Calibration of predicted probabilities: the expected calibration error, also debiased."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

#: Tolerance of a row's sum of probabilities, for float32 and many classes.
ROUNDING = 1e-3


@dataclass(frozen=True)
class CalibrationErrors:
    """Confidence (the probability of the predicted class) compared with accuracy, in bins of confidence.

    Attributes
    ----------
    confidence, accuracy : float64 array (b,)
        Mean confidence and accuracy of each bin with rows, in ascending order.
    rows : int64 array (b,)
        Number of rows in each of these bins.
    ece : float
        Expected calibration error: the mean absolute difference of the two, weighted by rows.
    by_chance : float
        The expected ECE of a perfectly calibrated classifier with these confidences.
    debiased : float
        The ECE minus its estimated bias; from 0 to ``ece``.
    """

    confidence: Floats
    accuracy: Floats
    rows: Integers
    ece: float
    by_chance: float
    debiased: float


def calibration_errors(probabilities: npt.ArrayLike, y: npt.ArrayLike, bins: int = 15) -> CalibrationErrors:
    """Measure the calibration of the predicted class.

    Parameters
    ----------
    probabilities : float array (n, n_classes)
        Of held-out rows, each row once: the bias assumes independent rows.
    y : int array (n,)
        The true class, as a column number.
    bins : int
        Number of bins of equal width in [0, 1].

    Raises
    ------
    ValueError
        If there are no rows, a row's probabilities do not sum to 1, or a class is not a column number.

    Notes
    -----
    ECE is that of Guo, Pleiss, Sun and Weinberger (ICML 2017). For few rows it is well above 0 even for a perfectly
    calibrated classifier, because the distances of bins are never negative (Bröcker, Climate Dynamics 39, 2012,
    655-667; Kumar, Liang and Ma, NeurIPS 2019; "consistency resampling", Vaicenavicius et al., AISTATS 2019, shows how
    much).

    The bias depends on the true calibration error: it is the whole ECE of a calibrated classifier, and nearly 0 where
    bins are off by more than their noise. It is therefore estimated as in a parametric bootstrap around an estimate of
    the true accuracies. These are the confidences plus the observed differences, shrunk by the share of their summed
    squares that exceeds the variance of a calibrated classifier (squares debiased as by Bröcker and Kumar et al.;
    positive-part shrinkage of James and Stein, 1961). Correct answers are binomial around them, and their mean absolute
    deviation has a closed form, so that nothing is drawn.

    Examples
    --------
    >>> from embedpipe.statistics import calibration_errors
    >>> errors = calibration_errors([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]], [0, 1, 1, 1], bins=10)
    >>> errors.confidence, errors.accuracy, round(errors.ece, 2)
    (array([0.8, 0.9]), array([1. , 0.5]), 0.3)
    """
    p, classes = _checked(probabilities, y)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == classes
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(bin_of, minlength=bins)
    filled = rows > 0
    mean_confidence, accuracy = (np.bincount(bin_of, each, bins)[filled] / rows[filled] for each in (confidence, right))
    mean_confidence = np.clip(mean_confidence, 0, 1)
    rows = rows[filled]
    share, gaps = rows / len(p), accuracy - mean_confidence
    squares, noise = float((rows * gaps) @ (rows * gaps)), float(rows @ (mean_confidence * (1 - mean_confidence)))
    shrinkage = max(1 - noise / squares, 0.0) if squares else 0.0
    truth = np.clip(mean_confidence + shrinkage * gaps, 0, 1)
    ece = float(share @ np.abs(gaps))
    bias = float(share @ (_mean_distance(rows, truth, mean_confidence) - np.abs(truth - mean_confidence)))
    by_chance = float(share @ _mean_distance(rows, mean_confidence, mean_confidence))
    debiased = min(max(ece - bias, 0.0), ece)
    return CalibrationErrors(mean_confidence, accuracy, rows, ece, by_chance, debiased)


def _mean_distance(n: Integers, p: Floats, point: Floats) -> Floats:
    """Return the expected absolute distance of a binomial share of n from a point (after De Moivre)."""
    count = n * point
    below = np.floor(count)
    upto = bdtr(below, n, p)
    # E[X; X <= k] = n p P(X' <= k - 1), with X' of n - 1 draws
    upto_less_one = np.where(below > 0, bdtr(np.maximum(below - 1, 0), np.maximum(n - 1, 0), p), 0)
    distance: Floats = (n * p - count + 2 * (count * upto - n * p * upto_less_one)) / n
    return distance


def _checked(probabilities: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Integers]:
    p, classes = np.asarray(probabilities, np.float64), np.asarray(y)
    if p.ndim != 2 or not p.size or classes.shape != p.shape[:1]:
        raise ValueError(
            "probabilities must have shape (n, n_classes) and y (n,), with n >= 1, got shapes "
            f"{p.shape} and {classes.shape}"
        )
    bad = ~((p >= -ROUNDING).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= ROUNDING))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"probabilities must be >= 0 and sum to 1 in each row, got {p[row]} in row {row}")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= p.shape[1]:
        raise ValueError(f"y must hold integers from 0 to {p.shape[1] - 1}, one per column of probabilities")
    return p, classes.astype(np.int64)
