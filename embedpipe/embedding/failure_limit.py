"""How many failed items a scheduled job puts up with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError


@dataclass(frozen=True)
class FailureLimit:
    """The most items that may fail: a number, or a share of all items in percent.

    Examples
    --------
    >>> FailureLimit.parse("5%").is_exceeded(failed=6, items=100)
    True
    >>> FailureLimit.parse("10").is_exceeded(failed=6, items=100)
    False
    """

    most: float
    in_percent: bool

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Parse ``10`` or ``5%``. Raises UsageError for anything else."""
        match = re.fullmatch(r"(\d{1,12}|\d{1,3}(?:\.\d+)?(?=%))(%?)", text.strip())
        if match is None or (match[2] and float(match[1]) > 100):
            raise UsageError(
                f"{option('max_failed')} must be a number of items such as 10, or a share such as 5%, got {text!r}"
            )
        return cls(float(match[1]), bool(match[2]))

    def is_exceeded(self, failed: int, items: int) -> bool:
        """Return whether more than the allowed items failed."""
        return failed > (self.most * items / 100 if self.in_percent else self.most)
