"""How sure predictions of classes are: the probability of the predicted class, the second class, and their margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Doubt:
    """How sure the predictions of rows are.

    Attributes
    ----------
    confidence : float64 array (n_samples,)
        Probability or score of the predicted class.
    second : int64 array (n_samples,)
        Position of the most probable of the other classes.
    margin : float64 array (n_samples,)
        Difference of the two probabilities or scores.
    """

    confidence: Floats
    second: npt.NDArray[np.int64]
    margin: Floats


def measure_doubt(scores: Floats, predicted: npt.NDArray[Any]) -> Doubt:
    """Compare the predicted class of each row with the best of the others.

    Parameters
    ----------
    scores : float64 array (n_samples, n_classes), or (n_samples, 1) for the second of two classes
        Probabilities, or decision scores.
    predicted : int array (n_samples,)
        Positions of the predicted classes.
    """
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    rows = np.arange(len(scores))
    first = scores[rows, predicted]
    others = scores.copy()
    others[rows, predicted] = -np.inf
    second = others.argmax(axis=1)
    return Doubt(first, second, first - others[rows, second])


def least_confident_first(table: pa.Table) -> pa.Table:
    """Return predictions in the order in which a person should look at them; failed items come last.

    Classes are sorted by ``confidence``, or by ``margin`` of a head without probabilities; numbers with intervals by
    the width of the interval, the widest first. Raises UsageError for other predictions.
    """
    label = table.column_names[2]
    if "margin" in table.column_names:
        key = table.column("confidence" if "confidence" in table.column_names else "margin")
    elif f"{label}_low" in table.column_names:
        key = pc.subtract(table.column(f"{label}_low"), table.column(f"{label}_high"))
    else:
        raise UsageError(
            f"{option('least_confident_first')} needs a head of classes, or one of numbers that was fitted with "
            f"{option('interval_coverage')}: leave it out"
        )
    return table.take(pc.sort_indices(pa.table({"key": key}), [("key", "ascending")]))
