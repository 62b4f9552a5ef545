"""The option ``near_duplicates``: the cosine between centred vectors from which two rows are near-duplicates.

The default was chosen with modified copies of 400 clothing photographs. It finds all copies compressed again at quality
90, 99 % of those scaled down by a quarter or 10 % brighter, and 61 % of those mirrored or compressed to quality 40. It
joins one pair among the 3,781 photographs that is no such copy: one picture with two labels. A cosine of 0.97 finds
97 % of the scaled copies, but 20 % of the mirrored ones. The price: of 2,624 solar cells, which all look the same, 28 %
are in groups with others, and few of these are copies (12 % with 0.97).
"""

from typing import Any, Literal

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

NEAR_DUPLICATE_COSINE = 0.95
#: A cosine in (0, 1], or "off": near-duplicates are not looked for.
NearDuplicates = float | Literal["off"]


def check_near_duplicates(value: Any) -> NearDuplicates:
    """Return the value of ``near_duplicates``. Raises UsageError if it is neither a cosine in (0, 1] nor "off"."""
    if value == "off":
        return "off"
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        default = NEAR_DUPLICATE_COSINE
        raise UsageError(
            f"{option('near_duplicates')} must be a cosine in (0, 1] or 'off', got {value!r} (default {default})"
        )
    return value
