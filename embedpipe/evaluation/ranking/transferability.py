"""Cheap hints of how well vectors suit labels, without fitting a head: one decomposition of the vectors each.

They go with accuracy after training, loosely: hints beside a measured probe, never in its place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import svd
from sklearn.covariance import ledoit_wolf_shrinkage

from embedpipe.heads.options import Task

Floats = npt.NDArray[np.float64]

#: Fixed-point steps; most data need fewer than ten.
STEPS = 200
#: Relative change of the ratio of precisions at which they end: the evidence is flat there.
TOLERANCE = 1e-6


def h_score(X: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    """Return the H-score with a shrunken covariance: how much of the vectors' variance is between classes.

    ``tr(S_a^-1 (1 - a) B)``, with B the covariance of the class means, S_a = (1 - a) S + a tr(S) / dim I the
    covariance of the vectors and a its Ledoit-Wolf shrinkage. From 0 (the class means are one) to nearly the number of
    classes less one.

    Parameters
    ----------
    X : float array (n_samples, dim)
    y : array (n_samples,)
        Classes.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, or there is one class only.

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
    """Return LogME: the logarithm of the largest evidence of a Bayesian linear model, per row; higher is better.

    Of classes it is the mean over one output a class, of numbers that of standardised numbers. The two precisions
    are found by the fixed-point iteration of the second paper, on one singular value decomposition.

    Parameters
    ----------
    X : float array (n_samples, dim)
    y : array (n_samples,)
        Classes, or numbers.
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
    found = (left.T @ Y) ** 2
    # What no coefficients reach; nothing, where there are as many directions as rows.
    outside = np.maximum((Y**2).sum(axis=0) - found.sum(axis=0), 0) if len(lengths) < len(X) else np.zeros(Y.shape[1])
    return float(_evidence(squares, found, outside, len(X)).mean() / len(X))


def _evidence(squares: Floats, found: Floats, outside: Floats, n: int) -> Floats:
    """Return the largest log evidence of each output, from squared singular values and squared projections.

    The weights have precision a and the noise precision b; all depends on t = a / b.
    """
    if not len(squares):
        return -n / 2 * (np.log(2 * np.pi * outside / n) + 1)
    lowest, highest = squares.max() * 1e-12, squares.max() * 1e12
    t = np.full(found.shape[1], squares.mean())
    for _ in range(STEPS):
        weights, residual, freedom = _parts(squares, found, outside, t)
        left = n - len(squares) + (t / (squares + t)).sum(axis=0)  # n less freedom, without cancellation
        with np.errstate(divide="ignore", over="ignore"):
            better = np.clip((freedom / weights) * (residual / left), lowest, highest)
        done = np.abs(better - t) <= TOLERANCE * t
        t = better
        if done.all():
            break
    weights, residual, _ = _parts(squares, found, outside, t)
    b = n / (residual + t * weights)
    determinant = np.log1p(squares / t).sum(axis=0)
    evidence: Floats = (n * np.log(b / (2 * np.pi)) - n - determinant) / 2
    return evidence


def _parts(squares: Floats, found: Floats, outside: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the squared length of the weights, that of the residual, and the degrees of freedom, of each output."""
    shrunken = squares + t
    weights = (squares * found / shrunken**2).sum(axis=0)
    residual = (t**2 * found / shrunken**2).sum(axis=0) + outside
    return weights, residual, (squares / shrunken).sum(axis=0)


def _decomposed(X: Floats) -> tuple[Floats, Floats, Floats]:
    """Return left vectors (n, rank), singular values (rank,) and right vectors (rank, dim)."""
    left, lengths, right = svd(X, full_matrices=False, check_finite=False)
    kept = lengths > max(X.shape) * np.finfo(np.float64).eps * lengths[0]
    return left[:, kept], lengths[kept], right[kept]


def _checked(X: Any, y: Any) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return vectors as float64, the labels as positions among the distinct ones, and how many there are of each."""
    X, y = np.asarray(X, np.float64), np.asarray(y)
    if X.ndim != 2 or y.shape != (len(X),) or not X.size:
        raise ValueError(f"X of shape {X.shape} and y of shape {y.shape}: give (n_samples, dim) and (n_samples,)")
    if not np.isfinite(X).all():
        raise ValueError("X holds NaN or infinite values: leave those rows out")
    known, positions, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(known) < 2:
        raise ValueError(f"all {len(y)} labels are {known[0].item()!r}: there is nothing to tell apart")
    return X, positions, counts
