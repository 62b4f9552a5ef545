"""Labels that an estimator is fitted on: none is missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedpipe._utils.missing import is_missing


def check_no_label_missing(y: Any) -> None:
    """Raise ValueError if labels are missing: None, NaN, or NA or NaT of pandas.

    For labels as they are given: scikit-learn takes them for an unknown type, or compares them.
    """
    labels = np.asarray(y)
    if labels.dtype.kind != "O" or labels.ndim != 1:
        return
    missing = [row for row, label in enumerate(labels.tolist()) if is_missing(label)]
    if missing:
        raise ValueError(
            f"y must have a label for each row, and {len(missing):,} of {len(labels):,} have none, the first is row "
            f"{missing[0]:,}: leave these rows out"
        )
