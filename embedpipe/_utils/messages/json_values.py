"""JSON that comes from files, and values for JSON, which has no word for NaN and infinite numbers."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value of JSON. Raises ValueError, also where it is nested more deeply than Python can follow."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def without_nan(value: Any) -> Any:
    """Return a value with null for NaN and infinite numbers, within dicts and lists too."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
