"""`How`: how neighbours were found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ``exact`` compares every query with every row.
Method = Literal["exact", "approximate"]


@dataclass(frozen=True)
class How:
    """How neighbours were found.

    Attributes
    ----------
    method : {"exact", "approximate"}
    k : int, optional
        Number of neighbours for which the recall was measured; only if approximate.
    recall : float, optional
        Measured share of the k nearest rows that are found; only if approximate.
    at_least : float, optional
        Lower end of its one-sided 95 % confidence interval.
    """

    method: Method
    k: int | None = None
    recall: float | None = None
    at_least: float | None = None

    def __str__(self) -> str:
        if self.method == "exact":
            return "exact"
        return f"approximate, recall@{self.k} {self.recall:.3f}, at least {self.at_least:.3f} (95 % confidence)"
