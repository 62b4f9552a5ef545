"""Trains the networks of `advise` on draws of labels, and pairs each with the best frozen baseline."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedpipe.finetuning.advice.frozen_baselines import CorrectRows, refit_best
from embedpipe.finetuning.advice.pilot import CORRUPTIONS, LEARNERS, pilot_runs
from embedpipe.finetuning.advice.result import FrozenBaselines
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.store import FeatureStore


class Runner:
    """Trains networks, or reads those that an earlier call trained.

    Attributes
    ----------
    by_count : dict
        The benchmark of each label count, and its runs.
    notes : list of str
    """

    def __init__(
        self,
        stores: Sequence[FeatureStore],
        split: SplitRows,
        baselines: FrozenBaselines,
        to: str | Path | None,
        options: Mapping[str, Any],
    ) -> None:
        self.stores, self.split, self.baselines, self.to, self.options = stores, split, baselines, to, options
        self.by_count: dict[int, tuple[Benchmark, list[PilotRun]]] = {}
        self.notes: list[str] = []

    @property
    def benchmarks(self) -> list[Benchmark]:
        """One for each label count, in ascending order."""
        return [benchmark for _, (benchmark, _) in sorted(self.by_count.items())]

    @property
    def runs(self) -> list[PilotRun]:
        """The runs of all label counts."""
        return [run for _, (_, runs) in sorted(self.by_count.items()) for run in runs]

    @property
    def shifted_rows(self) -> int | None:
        """Different rows of the shifted data; None if none were measured."""
        return (len(self.benchmarks[0].cells[0].shifted_correct) or None) if self.by_count else None

    @functools.cached_property
    def _best(self) -> CorrectRows | None:
        return refit_best(self.baselines, self.stores, self.split)

    def run(self, labels: int, seeds: int) -> None:
        """Train networks on ``labels`` labels, so that there are ``seeds`` of them."""
        from embedpipe.finetuning.benchmark.benchmark import benchmark

        assert self.to is not None
        grid: Any = {"learners": LEARNERS, "label_counts": (labels,), "seeds": seeds, **CORRUPTIONS}
        result = benchmark(self.stores[0], to=self.to, **grid, **self.options)
        # Test images that cannot be read are missing in the cells, whose rows then do not match those of the split.
        best = self._best if result.test_rows == len(self.split.test) else None
        self.by_count[labels] = result, pilot_runs(result, best)
        self.notes += result.notes
        if best is not None:
            reference = self.baselines.reference.name
            self.notes.append(
                f"Networks were compared with {self.baselines.best.name} or {reference}, whichever was more accurate "
                f"at a label count; on corrupted images with {reference}, as other baselines have no features of these."
            )
