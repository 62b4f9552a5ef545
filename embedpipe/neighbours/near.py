"""From which cosine of centred vectors on two rows are near-duplicates.

It was chosen by real copies of 400 clothing photographs. It finds all that were compressed anew at quality
90, 99 % of those made a quarter smaller or 10 % brighter, 61 % of those mirrored or compressed to quality 40, and of
the 3,781 photographs it joins one pair that nobody planted: one picture under two labels. At 0.97 it would still find
97 % of the smaller ones, but 20 % of the mirrored. The price: of 2,624 solar cells, which all look alike, 28 % lie in
groups, and few of these are copies; 12 % would at 0.97.
"""

from typing import Any, Literal

from embedpipe.errors import UsageError

NEAR_DUPLICATE_COSINE = 0.95
#: The option ``near_duplicates``: the cosine from which rows are near-duplicates, or "off" to look for none.
NearDuplicates = float | Literal["off"]


def check_near_duplicates(value: Any) -> NearDuplicates:
    """Return the option ``near_duplicates``; raise UsageError unless it is a cosine above 0, at most 1, or "off"."""
    if value == "off":
        return "off"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        default = NEAR_DUPLICATE_COSINE
        raise UsageError(f"near_duplicates must be a cosine in (0, 1] or 'off', got {value!r} (default {default})")
    return value
