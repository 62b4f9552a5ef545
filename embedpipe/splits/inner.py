"""Roles of rows: what a split column says, and folds inside the training data, on which a head chooses its penalty."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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

from embedpipe.sources.listing import SPLITS
from embedpipe.splits.grouped import fold_numbers

Split = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
#: A number of folds, or the splits themselves as (train rows, held-out rows); None decides by the data.
Folds = int | Iterable[Split] | None

FOLDS = 3
#: With more rows than this one held-out fifth decides as well as folds, for a third of the time.
MANY_ROWS = 20_000


def named_splits(values: Iterable[Any]) -> npt.NDArray[Any] | None:
    """Return names of splits, spelled as folders may be, as ``train``, ``validation`` and ``test``; others as they are.

    None where they do not name ``train`` and one of the other two, and so give no roles.
    """
    names = np.array([SPLITS.get(str(value).strip().lower(), value) for value in values], dtype=object)
    return names if {"train"} < {*names} & {"train", "validation", "test"} else None


def split_roles(splits: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], list[Split], list[Split] | None, str]:
    """Give rows their roles: tuned on validation, measured on test, or on validation where there is no test.

    Parameters
    ----------
    splits : array (n_samples,)
        As `named_splits` returns them; rows of another name have no role.

    Returns
    -------
    fitted_on : int64 array
        Rows that a head is fitted on in the end.
    measured_on : list of (train rows, test rows)
    tuned_on : list of (train rows, held-out rows), or None
        As positions in ``fitted_on``.
    protocol : str
    """
    if "test" not in splits:
        train, held_out = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "validation")
        return train, [(train, held_out)], None, "validation split"
    fitted_on = np.flatnonzero((splits == "train") | (splits == "validation"))
    test = np.flatnonzero(splits == "test")
    validation = splits[fitted_on] == "validation"
    tuned_on = [(np.flatnonzero(~validation), np.flatnonzero(validation))] if validation.any() else None
    return fitted_on, [(fitted_on, test)], tuned_on, "test split"


def inner_splits(folds: Folds, y: npt.NDArray[Any], classes: bool, usual: int = FOLDS) -> list[Split]:
    """Return the splits to choose on; none where all classes have single rows, or no split has anything to hold out.

    Parameters
    ----------
    folds : int, splitter, iterable of splits, or None
        As scikit-learn's ``cv``, but that None means ``usual`` folds, or one held-out fifth of `MANY_ROWS` rows and
        more.
    y : array (n_samples,)
    classes : bool
        Whether to keep the shares of the classes alike.
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
            # scikit-learn would warn of the class that is not in every fold, and warnings cannot be hidden in a thread.
            numbers = fold_numbers(np.unique(y, return_inverse=True)[1], None, wanted, np.random.default_rng(0))
            splitter = PredefinedSplit(numbers)
        else:
            shuffled = {"shuffle": True, "random_state": 0} if folds is None else {}
            splitter = (StratifiedKFold if classes else KFold)(wanted, **shuffled)
    splits = [_usable(y, train, test, classes) for train, test in splitter.split(y[:, None], y)]
    return [split for split in splits if len(split[1]) and len(np.unique(y[split[0]])) > 1]


def _usable(y: npt.NDArray[Any], train: Any, test: Any, classes: bool) -> Split:
    """Return row numbers, also where masks were given, without held-out rows of a class that is not trained on."""
    train, test = (
        np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows) for rows in (train, test)
    )
    return train, test[np.isin(y[test], y[train])] if classes else test


def take_rows(X: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return ``X[rows]``; a view, and no copy, where the rows follow one another."""
    if len(rows) and (np.diff(rows) == 1).all():
        return X[rows[0] : rows[-1] + 1]
    taken: npt.NDArray[Any] = X[rows]
    return taken
