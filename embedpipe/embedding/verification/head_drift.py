"""What the same head makes of two vectors of each item: a paired comparison on the user's own labels.

Pooled out-of-fold predictions on the same folds, so that an item is compared with itself only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from embedpipe.statistics import paired_bootstrap, paired_interval

Floats = npt.NDArray[np.float64]

FOLDS = 5
#: Labelled rows below which nothing is said of numbers.
FEWEST_NUMBERS = 20
#: Penalties that ridge regression chooses from by leave-one-out error on the training rows.
PENALTIES = np.logspace(-1, 5, 13)
SEED = 0


@dataclass(frozen=True)
class HeadDrift:
    """How much better or worse a head is on the cheaper vectors.

    Attributes
    ----------
    metric : str
        ``accuracy`` of logistic regression for classes, ``r2`` of ridge regression for numbers; both on standardised
        vectors, measured on pooled out-of-fold predictions of 5-fold cross-validation.
    rows, classes : int
        Labelled items that were compared, and their classes; 0 classes for numbers.
    left_out : dict
        Why items of the sample were left out, and how many.
    reference, cheaper : float
        The metric on either.
    difference : float
        Cheaper less reference; ``low`` and ``high`` are the ends of its 95 % interval, in the same unit.

    Notes
    -----
    The interval of the accuracy is the score interval for paired proportions, method 10 of Newcombe (Statistics in
    Medicine 17, 1998, 2635-2650), which also holds where both heads err on the same items. That of R2 is the
    percentile bootstrap over items (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Both
    take the predictions as given: how the draw of the folds moves them is not in it.
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
    """Labels of items, of which some take part.

    Parameters
    ----------
    name : str
        Of their column.
    y : array (n,)
        The items' labels; whatever stands where there is none.
    usable : bool array (n,)
        Which of them take part.
    numbers : bool
        Whether they are numbers to predict, and not classes.
    left_out : dict
        Why the others do not, and how many.
    """

    name: str
    y: npt.NDArray[Any]
    usable: npt.NDArray[np.bool_]
    numbers: bool
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, column: pa.ChunkedArray, name: str) -> Labelled | str:
        """Read a column: text, whole numbers and booleans are classes, as in `fit`; or say why it holds no labels."""
        kinds = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
        if not any(is_kind(column.type) for is_kind in kinds):
            return f"column {name!r} holds {column.type} values, which are no labels"
        there = pc.is_valid(column)
        if pa.types.is_floating(column.type):
            there = pc.and_(there, pc.fill_null(pc.is_finite(column), False))
        usable = np.asarray(there, bool)
        if not pa.types.is_floating(column.type):
            return cls(name, np.array([str(value) for value in column.to_pylist()]), usable, False)
        y = np.nan_to_num(column.to_numpy().astype(np.float64))
        return cls(name, y, usable, bool((y[usable] != np.round(y[usable])).any()))

    def among(self, rows: npt.NDArray[np.bool_]) -> Labelled | str:
        """Return the labels of some items, without classes too rare for the folds; or say why heads cannot."""
        y, usable = self.y[rows], self.usable[rows]
        left_out = {f"without a {self.name}": missing} if (missing := int((~usable).sum())) else {}
        if self.numbers:
            if usable.sum() < FEWEST_NUMBERS or len(np.unique(y[usable])) < 2:
                return (
                    f"{int(usable.sum())} numbers in {self.name!r} are too few to compare heads: take a larger --sample"
                )
            return Labelled(self.name, y, usable, True, left_out)
        names, counts = np.unique(y[usable], return_counts=True)
        common = usable & np.isin(y, names[counts >= FOLDS])
        if rare := int((usable & ~common).sum()):
            left_out[f"of a {self.name} that fewer than {FOLDS} have"] = rare
        if (classes := int((counts >= FOLDS).sum())) < 2:
            few = f"{classes} of the {len(names)} classes in {self.name!r} have {FOLDS} items in the sample"
            return f"{few}, and heads are compared on two at least: take a larger --sample"
        return Labelled(self.name, y, common, False, left_out)


def compare_heads(reference: npt.NDArray[Any], cheaper: npt.NDArray[Any], labels: Labelled) -> HeadDrift:
    """Measure the same head on two vectors of each item, (n, dim), on the same folds."""
    y = labels.y[labels.usable]
    head: Any = RidgeCV(PENALTIES) if labels.numbers else LogisticRegression(max_iter=1000)
    folds = (KFold if labels.numbers else StratifiedKFold)(FOLDS, shuffle=True, random_state=SEED)
    model = make_pipeline(StandardScaler(), head)
    with threadpool_limits(1, user_api="blas"):  # many small products
        one, other = (
            cross_val_predict(model, np.asarray(X[labels.usable], np.float64), y, cv=folds)
            for X in (reference, cheaper)
        )
    if labels.numbers:
        scores = _r2(y, one), _r2(y, other)
        drawn = paired_bootstrap(_r2, y, one, other, seed=SEED)
        low, high = drawn.low, drawn.high
    else:
        right = one == y, other == y
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
