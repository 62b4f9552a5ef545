"""The split column of a store or table: which rows its names train, validation and test stand for.

Rows of train are trained on. Rows of validation serve to choose parameters; the final model is trained on them too.
Rows of test are only measured on. Without test rows, the validation rows are measured on instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from embedpipe._utils.missing import is_missing
from embedpipe.sources.listing import split_name
from embedpipe.splits.inner import Split


class DeclaredSplit(NamedTuple):
    """The rows of a split column.

    Attributes
    ----------
    fit_rows : int64 array
        Rows that the final model is trained on.
    splits : list of (train rows, test rows)
        One split, to measure on.
    tune_splits : list of (train rows, held-out rows), or None
        Where to choose parameters, as positions in ``fit_rows``.
    measured_on : {"test", "validation"}
    """

    fit_rows: npt.NDArray[np.int64]
    splits: list[Split]
    tune_splits: list[Split] | None
    measured_on: Literal["test", "validation"]


def parse_split_names(values: Iterable[Any]) -> npt.NDArray[Any] | None:
    """Return the split names with the usual spellings of train, validation and test unified; other values unchanged.

    Returns None unless ``train`` and one of ``validation`` and ``test`` occur: the column then declares no split.
    """
    names = np.array([None if is_missing(value) else split_name(value) for value in values], dtype=object)
    return names if {"train"} < {*names} & {"train", "validation", "test"} else None


def divide_by_split(names: npt.NDArray[Any]) -> DeclaredSplit:
    """Return the rows to train on, to choose parameters on and to measure on.

    Parameters
    ----------
    names : array (n_samples,)
        As `parse_split_names` returns them. Rows of any other name are not used.
    """
    if "test" not in names:
        train, held_out = np.flatnonzero(names == "train"), np.flatnonzero(names == "validation")
        return DeclaredSplit(train, [(train, held_out)], None, "validation")
    fit_rows = np.flatnonzero((names == "train") | (names == "validation"))
    test = np.flatnonzero(names == "test")
    validation = names[fit_rows] == "validation"
    tune_splits = [(np.flatnonzero(~validation), np.flatnonzero(validation))] if validation.any() else None
    return DeclaredSplit(fit_rows, [(fit_rows, test)], tune_splits, "test")
