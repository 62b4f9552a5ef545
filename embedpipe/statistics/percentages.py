"""Shares in percent, for people; JSON and tables for programs have numbers from 0 to 1."""

from __future__ import annotations

import math


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent: above 0 but below the last digit is ``<``, and below 1 is never rounded to 100 %.

    Examples
    --------
    >>> from embedpipe.statistics import percent
    >>> percent(0.574), percent(0.0002), percent(0.9999), percent(1)
    ('57.4 %', '<0.1 %', '>99.9 %', '100.0 %')
    """
    if math.isnan(share):
        return "—"
    least = 10.0**-digits
    if 0 < 100 * share < least:
        return f"<{least:.{digits}f} %"
    if 100 - least / 2 <= 100 * share < 100:
        return f">{100 - least:.{digits}f} %"
    return f"{100 * share:.{digits}f} %"
