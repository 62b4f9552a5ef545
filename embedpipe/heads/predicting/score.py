"""The score of predictions beside true values, as `Head.score` returns it."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from sklearn.metrics import r2_score

from embedpipe.heads.options import Task


def score_values(task: Task, pairs: Sequence[tuple[Any, Any]], separator: str) -> float:
    """Return the share of pairs with equal classes or equal sets of labels, or R2, as ``score`` of scikit-learn.

    Parameters
    ----------
    pairs : sequence of (true value, predicted value)
        Several labels are joined by ``separator``, or a collection. A class may be a number on one side and its text,
        or a number of another type, on the other: 1, 1.0 and ``"1"`` are equal.
    """
    if task == "regression":
        return float(r2_score(*np.asarray(pairs, float).T))
    if task == "multilabel":
        pairs = [(_label_set(truth, separator), _label_set(predicted, separator)) for truth, predicted in pairs]
        return float(np.mean([truth == predicted for truth, predicted in pairs]))
    return float(np.mean([_is_same_class(truth, predicted) for truth, predicted in pairs]))


def _is_same_class(truth: Any, predicted: Any) -> bool:
    if str(truth) == str(predicted):
        return True
    if not (isinstance(truth, Number) or isinstance(predicted, Number)):
        return False
    try:
        return float(truth) == float(predicted)
    except (TypeError, ValueError):  # a text that is no number
        return False


def _label_set(value: Any, separator: str) -> set[str]:
    names = str(value).split(separator) if isinstance(value, str) else [str(each) for each in value]
    return {name.strip() for name in names} - {""}
