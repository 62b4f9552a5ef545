"""Splits inside the training rows, on which an estimator chooses its parameters, such as the C of ``logreg``.

Each part is held out once while the others are trained on. No test row is in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import (
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    check_cv,
)

from embedpipe.splits.grouped import fold_numbers
from embedpipe.splits.mapped_rows import MappedRows

Split = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
#: The number of folds, or the splits as (train rows, held-out rows); None: by the number of rows.
Folds = int | Iterable[Split] | None

FOLDS = 3
#: With more rows than this, one held-out fifth chooses as well as 3 folds, in a third of the time.
MANY_ROWS = 20_000


def inner_splits(
    folds: Folds,
    y: npt.NDArray[Any],
    classes: bool,
    usual: int = FOLDS,
    weights: npt.NDArray[np.float64] | None = None,
) -> list[Split]:
    """Return the splits inside the training rows to choose parameters on.

    Parameters
    ----------
    folds : int, splitter, iterable of splits, or None
        As scikit-learn's ``cv``. None means ``usual`` folds, or one held-out fifth of more than `MANY_ROWS` rows.
    y : array (n_samples,)
    classes : bool
        Whether ``y`` holds classes, whose shares then are the same in all folds.
    usual : int
        Number of folds where ``folds`` is None.
    weights : float64 array (n_samples,), optional
        Weights >= 0. A split that trains or measures on rows without a weight only is left out.

    Returns
    -------
    list of (train rows, held-out rows)
        Empty if every class has a single row, or no split holds out any row.
    """
    counts = np.unique(y, return_counts=True)[1] if classes else np.array([len(y)])
    splitter: Any
    if folds is not None and not isinstance(folds, int):
        splitter = check_cv(folds, y, classifier=classes)
    elif counts.max() < 2:
        return []
    elif folds is None and len(y) > MANY_ROWS and counts.min() >= 5:
        splitter = (StratifiedShuffleSplit if classes else ShuffleSplit)(1, test_size=0.2, random_state=0)
    else:
        wanted = min(usual, int(counts.max())) if folds is None else folds
        if classes and counts.min() < wanted <= counts.max():
            # scikit-learn warns of a class that is not in every fold, and a thread cannot silence warnings.
            numbers = fold_numbers(np.unique(y, return_inverse=True)[1], None, wanted, np.random.default_rng(0))
            splitter = PredefinedSplit(numbers)
        else:
            shuffled = {"shuffle": True, "random_state": 0} if folds is None else {}
            splitter = (StratifiedKFold if classes else KFold)(wanted, **shuffled)
    weighted = np.ones(len(y), bool) if weights is None else weights > 0
    splits = []
    for train, test in splitter.split(y[:, None], y):
        train, test = _row_numbers(train), _row_numbers(test)
        learned = y[train[weighted[train]]]
        if classes:  # a class without a training row cannot be predicted
            test = test[np.isin(y[test], learned)]
        if weighted[test].any() and len(np.unique(learned)) > 1:
            splits.append((train, test))
    return splits


def _row_numbers(rows: Any) -> npt.NDArray[np.int64]:
    """Return row numbers, also of a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows


@overload
def take_rows(X: MappedRows, rows: npt.NDArray[np.int64]) -> MappedRows: ...
@overload
def take_rows(X: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]: ...
def take_rows(X: npt.NDArray[Any] | MappedRows, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any] | MappedRows:
    """Return ``X[rows]``, as a view instead of a copy where the rows are consecutive; mapped rows stay on disk."""
    if isinstance(X, MappedRows):
        return X.take(rows)
    if len(rows) and (np.diff(rows) == 1).all():
        return X[rows[0] : rows[-1] + 1]
    taken: npt.NDArray[Any] = X[rows]
    return taken
