"""Transferability scores: how well vectors fit labels, by one decomposition of the vectors, without fitting a head.

They correlate loosely with the accuracy after training, so they complement a linear probe and do not replace it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import svd
from sklearn.covariance import ledoit_wolf_shrinkage

from embedpipe.heads.options import Task

Floats = npt.NDArray[np.float64]

#: Largest number of fixed-point steps; most data need fewer than ten.
MAX_STEPS = 200
#: Relative change of the ratio of precisions at which the iteration ends.
TOLERANCE = 1e-6


def h_score(X: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    """Return the H-score with a shrunken covariance: the share of variance between classes, summed over directions.

    ``tr(S_a^-1 (1 - a) B)``, with B the covariance of the class means, S_a = (1 - a) S + a tr(S) / dim I the
    covariance of the vectors and a its Ledoit-Wolf shrinkage. It is between 0 (equal class means) and nearly the number
    of classes minus 1.

    Parameters
    ----------
    X : float array (n_samples, dim)
    y : array (n_samples,)
        Class of each row.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or there is only one class.

    References
    ----------
    Bao et al., An information-theoretic approach to transferability in task transfer learning, ICIP 2019. Ibrahim,
    Ponomareva and Mazumder, Newer is not always better: rethinking transferability metrics, their peculiarities,
    stability and performance, ECML PKDD 2022. Ledoit and Wolf, Journal of Multivariate Analysis 88, 2004.
    """
    X, positions, counts = _checked(X, y)
    centred = X - X.mean(axis=0)
    _, lengths, basis = _decomposed(centred)
    if not len(lengths):
        return 0.0
    shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    spread = (centred**2).sum() / centred.size
    # The class means lie in the span of the rows, so that its basis is enough.
    sums = np.zeros((len(counts), len(lengths)))
    np.add.at(sums, positions, centred @ basis.T)
    between = (sums**2 / counts[:, None]).sum(axis=0) / len(X)
    within = (1 - shrinkage) * lengths**2 / len(X) + shrinkage * spread
    return float(((1 - shrinkage) * between / within).sum())


def log_me(X: npt.NDArray[Any], y: npt.NDArray[Any], task: Task = "classification") -> float:
    """Return LogME: the maximum log evidence of a Bayesian linear model, divided by the number of rows.

    Higher is better. For classes it is the mean over one output per class, for regression that of standardised
    numbers. The two precisions are found by the fixed-point iteration of the second paper, on one singular value
    decomposition.

    Parameters
    ----------
    X : float array (n_samples, dim)
    y : array (n_samples,)
        Class or number of each row.
    task : str

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or all labels are the same.

    References
    ----------
    You et al., LogME: practical assessment of pre-trained models for transfer learning, ICML 2021. You et al.,
    Ranking and tuning pre-trained models: a new paradigm for exploiting model hubs, JMLR 23, 2022.
    """
    X, positions, counts = _checked(X, y)
    if task == "classification":
        Y = np.eye(len(counts))[positions]
    else:
        numbers = np.asarray(y, np.float64)
        Y = ((numbers - numbers.mean()) / numbers.std())[:, None]
    left, lengths, _ = _decomposed(X)
    squares = (lengths**2)[:, None]
    projections = (left.T @ Y) ** 2
    # Squared length outside the span of the vectors; 0 if there are as many directions as rows.
    outside = (
        np.maximum((Y**2).sum(axis=0) - projections.sum(axis=0), 0) if len(lengths) < len(X) else np.zeros(Y.shape[1])
    )
    return float(_evidence(squares, projections, outside, len(X)).mean() / len(X))


def _evidence(squares: Floats, projections: Floats, outside: Floats, n: int) -> Floats:
    """Return the maximum log evidence of each output, from squared singular values and squared projections.

    With precision a of the weights and b of the noise, everything depends on t = a / b.
    """
    if not len(squares):
        return -n / 2 * (np.log(2 * np.pi * outside / n) + 1)
    lowest, highest = squares.max() * 1e-12, squares.max() * 1e12
    t = np.full(projections.shape[1], squares.mean())
    for _ in range(MAX_STEPS):
        weights, residual, freedom = _parts(squares, projections, outside, t)
        left = n - len(squares) + (t / (squares + t)).sum(axis=0)  # n - freedom, without cancellation
        with np.errstate(divide="ignore", over="ignore"):
            updated = np.clip((freedom / weights) * (residual / left), lowest, highest)
        done = np.abs(updated - t) <= TOLERANCE * t
        t = updated
        if done.all():
            break
    weights, residual, _ = _parts(squares, projections, outside, t)
    b = n / (residual + t * weights)
    determinant = np.log1p(squares / t).sum(axis=0)
    evidence: Floats = (n * np.log(b / (2 * np.pi)) - n - determinant) / 2
    return evidence


def _parts(squares: Floats, projections: Floats, outside: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """Return squared length of weights and residual, and degrees of freedom, of each output."""
    shrunken = squares + t
    weights = (squares * projections / shrunken**2).sum(axis=0)
    residual = (t**2 * projections / shrunken**2).sum(axis=0) + outside
    return weights, residual, (squares / shrunken).sum(axis=0)


def _decomposed(X: Floats) -> tuple[Floats, Floats, Floats]:
    """Return left vectors (n, rank), singular values (rank,) and right vectors (rank, dim)."""
    left, lengths, right = svd(X, full_matrices=False, check_finite=False)
    nonzero = lengths > max(X.shape) * np.finfo(np.float64).eps * lengths[0]
    return left[:, nonzero], lengths[nonzero], right[nonzero]


def _checked(X: Any, y: Any) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return vectors as float64, labels as positions in the sorted distinct labels, and the count of each."""
    X, y = np.asarray(X, np.float64), np.asarray(y)
    if X.ndim != 2 or y.shape != (len(X),) or not X.size:
        raise ValueError(f"X and y must have shapes (n_samples, dim) and (n_samples,), got {X.shape} and {y.shape}")
    if not np.isfinite(X).all():
        raise ValueError("X must be finite, got NaN or infinity: leave those rows out")
    known, positions, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(known) < 2:
        raise ValueError(f"y must have at least 2 distinct labels, got only {known.tolist()[0]!r}")
    return X, positions, counts
