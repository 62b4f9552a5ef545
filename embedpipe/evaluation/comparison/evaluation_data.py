"""The data of an evaluation, which charts and page read. `Evaluation` adds the methods that need these."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from embedpipe.evaluation.comparison.candidate_result import CandidateResult
from embedpipe.heads.options import Task


@dataclass(repr=False)
class EvaluationData:
    """Data of an evaluation: plain values, dataclasses and one table. See `Evaluation` for the attributes."""

    label: str
    task: Task
    metric: str
    higher_is_better: bool
    resampling: str
    n_repeats: int
    n_folds: int
    splits_id: str
    rows: int
    classes: list[str]
    baseline: dict[str, float]
    margin: float
    left_out: dict[str, int]
    notes: list[str]
    candidates: list[CandidateResult]
    predictions: pa.Table
    test_rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best(self) -> CandidateResult:
        """The candidate with the best mean."""
        return self.candidates[0]

    @property
    def n_resamples(self) -> int:
        """Number of pairs of training and test rows: ``n_repeats * n_folds``."""
        return self.n_repeats * self.n_folds

    def to_dict(self) -> dict[str, Any]:
        """Return everything but ``predictions`` as plain numbers, strings, lists and dicts."""
        plain = {key: value for key, value in vars(self).items() if key != "predictions"}
        return plain | {"candidates": [asdict(candidate) for candidate in self.candidates]}
