"""Values that are missing, whatever library they come from."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Types of the missing values of pandas, by name, as pandas need not be installed.
_OF_PANDAS = ("NAType", "NaTType")


def is_missing(value: Any) -> bool:
    """Return whether a text, label or group is missing: None, NaN, or pandas' NA or NaT."""
    nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return value is None or nan or type(value).__name__ in _OF_PANDAS
