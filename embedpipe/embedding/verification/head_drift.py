"""Paired comparison of a head on two vectors of each item, with the labels of the store.

Both heads use pooled out-of-fold predictions on the same folds, so each item is compared with itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from embedpipe._utils.option_names import option
from embedpipe.statistics import paired_bootstrap, paired_interval
from embedpipe.store.scan import has_label

Floats = npt.NDArray[np.float64]

FOLDS = 5
#: Fewest labelled rows for a comparison on numbers.
FEWEST_NUMBERS = 20
#: Penalties of ridge regression, chosen by leave-one-out error on the training rows.
PENALTIES = np.logspace(-1, 5, 13)
SEED = 0


@dataclass(frozen=True)
class HeadDrift:
    """Change of the score of a head on the cheaper vectors.

    Attributes
    ----------
    metric : str
        ``accuracy`` of logistic regression for classes, ``r2`` of ridge regression for numbers. Both use standardised
        vectors and pooled out-of-fold predictions of 5-fold cross-validation.
    rows, classes : int
        Number of labelled items compared, and of their classes; 0 classes for numbers.
    left_out : dict
        Number of items left out, by reason.
    reference, cheaper : float
        The metric on the reference and on the cheaper vectors.
    difference : float
        Cheaper minus reference. ``low`` and ``high`` are the ends of its 95 % interval.

    Notes
    -----
    The interval of the accuracy is the score interval for paired proportions, method 10 of Newcombe (Statistics in
    Medicine 17, 1998, 2635-2650), which is valid if both heads err on the same items. The interval of R2 is the
    percentile bootstrap over items (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Both are
    widened to what so many items may leave unseen (`embedpipe.statistics.unseen_share`), as equal predictions have no
    spread. Both take the predictions as fixed, so they exclude the variance of the folds.
    """

    metric: Literal["accuracy", "r2"]
    rows: int
    classes: int
    left_out: dict[str, int]
    reference: float
    cheaper: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Labelled:
    """Labels of items, of which some are usable.

    Parameters
    ----------
    name : str
        Name of the label column.
    y : array (n,)
        Labels of the items, arbitrary where not usable.
    usable : bool array (n,)
        Mask of the items that take part.
    numbers : bool
        Whether the labels are numbers and not classes.
    left_out : dict
        Number of items left out, by reason.
    """

    name: str
    y: npt.NDArray[Any]
    usable: npt.NDArray[np.bool_]
    numbers: bool
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, column: pa.ChunkedArray, name: str) -> Labelled | str:
        """Read a column, with strings, integers and booleans as classes. Returns a reason if there are no labels."""
        kinds = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
        if not any(is_kind(column.type) for is_kind in kinds):
            return f"column {name!r} holds {column.type} values, which cannot be labels"
        usable = has_label(column)
        if not pa.types.is_floating(column.type):
            return cls(name, np.array([str(value) for value in column.to_pylist()]), usable, False)
        y = np.nan_to_num(column.to_numpy().astype(np.float64))
        return cls(name, y, usable, bool((y[usable] != np.round(y[usable])).any()))

    def among(self, rows: npt.NDArray[np.bool_]) -> Labelled | str:
        """Return the labels of some items without classes too rare for the folds, or the reason why there are none."""
        y, usable = self.y[rows], self.usable[rows]
        left_out = {f"without a {self.name}": missing} if (missing := int((~usable).sum())) else {}
        if self.numbers:
            if usable.sum() < FEWEST_NUMBERS or len(np.unique(y[usable])) < 2:
                return (
                    f"comparing heads needs {FEWEST_NUMBERS} numbers in {self.name!r}, got {int(usable.sum())}: "
                    f"use a larger {option('sample')}"
                )
            return Labelled(self.name, y, usable, True, left_out)
        names, counts = np.unique(y[usable], return_counts=True)
        common = usable & np.isin(y, names[counts >= FOLDS])
        if rare := int((usable & ~common).sum()):
            left_out[f"of a {self.name} with fewer than {FOLDS} items"] = rare
        if (classes := int((counts >= FOLDS).sum())) < 2:
            return (
                f"comparing heads needs two classes in {self.name!r} with {FOLDS} items, got "
                f"{classes} of {len(names)}: use a larger {option('sample')}"
            )
        return Labelled(self.name, y, common, False, left_out)


def compare_heads(
    reference: npt.NDArray[Any], cheaper: npt.NDArray[Any], labels: Labelled, *, rotated: bool = False
) -> HeadDrift:
    """Measure the same head on the two vectors of each item, (n, dim), with the same folds.

    Standardising would enlarge the smallest of principal components. Vectors that are ``rotated`` are therefore divided
    by one number, and classes are predicted by ridge regression, whose penalty is chosen as that for numbers is.
    """
    y = labels.y[labels.usable]
    head: Any = RidgeCV(PENALTIES) if labels.numbers else LogisticRegression(max_iter=1000)
    folds = (KFold if labels.numbers else StratifiedKFold)(FOLDS, shuffle=True, random_state=SEED)
    model = make_pipeline(StandardScaler(), head)
    if rotated:
        model = make_pipeline(head if labels.numbers else RidgeClassifierCV(PENALTIES))
        scale = np.sqrt(np.mean(np.var(reference, axis=0, dtype=np.float64))) or 1.0
        reference, cheaper = reference / scale, cheaper / scale
    with threadpool_limits(1, user_api="blas"):  # faster for many small products
        before, after = (
            cross_val_predict(model, np.asarray(X[labels.usable], np.float64), y, cv=folds)
            for X in (reference, cheaper)
        )
    if labels.numbers:
        scores = _r2(y, before), _r2(y, after)
        drawn = paired_bootstrap(_r2, y, before, after, seed=SEED)
        low, high = drawn.low, drawn.high
    else:
        right = before == y, after == y
        scores = float(right[0].mean()), float(right[1].mean())
        low, high = paired_interval(
            int((right[0] & right[1]).sum()),
            int((right[0] & ~right[1]).sum()),
            int((~right[0] & right[1]).sum()),
            int((~right[0] & ~right[1]).sum()),
        )
    return HeadDrift(
        metric="r2" if labels.numbers else "accuracy",
        rows=len(y),
        classes=0 if labels.numbers else len(np.unique(y)),
        left_out=labels.left_out,
        reference=scores[0],
        cheaper=scores[1],
        difference=scores[1] - scores[0],
        low=low,
        high=high,
    )


def _r2(y: Floats, predicted: Floats) -> float:
    total = float(np.sum((y - y.mean()) ** 2))
    return 1 - float(np.sum((predicted - y) ** 2)) / total if total else float("nan")
