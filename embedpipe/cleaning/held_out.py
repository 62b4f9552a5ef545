"""Probabilities of rows by heads that were not fitted on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Advance, uncounted
from embedpipe.errors import TrainingDataError
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.registry import make_estimator
from embedpipe.report.drawing.wording import counted
from embedpipe.splits.make import make_splits
from embedpipe.splits.splits import Splits

Rows = npt.NDArray[np.int64]
FOLDS = 5
#: Small classes that a note names.
NAMED = 5


class FoldRows(NamedTuple):
    """Rows of classes that are large enough for the folds, as positions, with their splits and notes on the others."""

    rows: Rows
    splits: Splits
    notes: list[str]


def fold_rows(y: npt.NDArray[Any], groups: Rows | None, seed: int) -> FoldRows:
    """Divide rows into folds; those of classes with fewer rows, or groups, than folds are left out.

    Parameters
    ----------
    y : array (n_rows,)
        Classes.
    groups : int64 array (n_rows,), optional
        Rows of equal numbers are in one fold.
    seed : int

    Raises
    ------
    TrainingDataError
        If fewer than two classes are large enough.
    """
    classes, kinds = np.unique(y, return_inverse=True)
    units = np.unique(np.column_stack([kinds, np.arange(len(y)) if groups is None else groups]), axis=0)[:, 0]
    rare = np.bincount(units, minlength=len(classes)) < FOLDS
    n_rare = int(rare.sum())
    what = "rows" if groups is None else "rows that are no duplicates and of no common group"
    if len(classes) - n_rare < 2:
        raise TrainingDataError(f"two classes must have at least {FOLDS} {what}, got {len(classes) - n_rare} such")
    rows = np.flatnonzero(~rare[kinds])
    notes = []
    if n_rare:
        named = ", ".join(repr(name) for name in classes[rare][:NAMED].tolist())
        more = f" and {n_rare - NAMED} more" * (n_rare > NAMED)
        left = counted(len(y) - len(rows), "row")
        notes.append(f"not judged: {left} of {named}{more}, which have fewer than {FOLDS} {what}")
    splits = make_splits(
        [str(row) for row in rows],
        y[rows],
        task="classification",
        groups=None if groups is None else groups[rows].tolist(),
        near_duplicates=None,
        folds=FOLDS,
        repeats=1,
        seed=seed,
    )
    return FoldRows(rows, splits, notes)


def held_out_probabilities(
    X: npt.NDArray[np.float32],
    rows: Rows,
    y: npt.NDArray[Any],
    splits: Splits,
    head: str,
    advance: Advance = uncounted,
) -> npt.NDArray[np.float64]:
    """Return the probabilities of the sorted classes of ``y``, (n_labelled, n_classes); NaN for rows of no test fold.

    Parameters
    ----------
    X : float32 array (n_rows, dim)
    rows : int64 array (n_labelled,)
        The rows of ``X`` that ``y`` and ``splits`` are about.
    y : array (n_labelled,)
    splits : Splits
    head : str
        Its name.
    advance : callable, optional
        Is called with 1 after each fold.
    """
    classes = np.unique(y)
    probabilities = np.full((len(y), len(classes)), np.nan)
    for resample in splits.resamples:
        _, estimator = make_estimator(head, "classification", len(resample.train))
        fitted = fit_on(estimator, X[rows[resample.train]], y[resample.train])
        probabilities[resample.test] = 0  # of classes that the fold did not learn
        columns = np.searchsorted(classes, fitted.classes_)
        probabilities[np.ix_(resample.test, columns)] = fitted.predict_proba(X[rows[resample.test]])
        advance(1)
    return probabilities
