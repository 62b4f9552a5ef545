"""Folds inside the training data, on which a head chooses its own regularisation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit

Split = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
#: A number of folds, or the splits themselves as (train rows, held-out rows); None decides by the data.
Folds = int | Iterable[Split] | None

FOLDS = 3
#: With more rows than this one held-out fifth decides as well as folds, for a third of the time.
MANY_ROWS = 20_000


def inner_splits(folds: Folds, y: npt.NDArray[Any], classes: bool) -> list[Split]:
    """Return the splits to choose on; none where a class has a single row.

    Parameters
    ----------
    folds : int, iterable of splits, or None
        None means `FOLDS` folds, or one held-out fifth of `MANY_ROWS` rows and more.
    y : array (n_samples,)
    classes : bool
        Whether to keep the shares of the classes alike.
    """
    if folds is not None and not isinstance(folds, int):
        return [(np.asarray(train), np.asarray(test)) for train, test in folds]
    smallest = int(np.unique(y, return_counts=True)[1].min()) if classes else len(y)
    if smallest < 2:
        return []
    if folds is None and len(y) > MANY_ROWS and smallest >= 5:
        once: Any = StratifiedShuffleSplit if classes else ShuffleSplit
        return list(once(1, test_size=0.2, random_state=0).split(y[:, None], y))
    kind: Any = StratifiedKFold if classes else KFold
    return list(kind(min(folds or FOLDS, smallest), shuffle=True, random_state=0).split(y[:, None], y))


def take_rows(X: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return ``X[rows]``; a view, and no copy, where the rows follow one another."""
    if len(rows) and (np.diff(rows) == 1).all():
        return X[rows[0] : rows[-1] + 1]
    taken: npt.NDArray[Any] = X[rows]
    return taken
