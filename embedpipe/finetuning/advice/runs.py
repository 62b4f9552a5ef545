"""Trains the networks of `advise` on draws of labels, and pairs each with the best frozen baseline."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.finetuning.advice.advice_data import FrozenBaselines
from embedpipe.finetuning.advice.frozen_baselines import CorrectRows, refit_best
from embedpipe.finetuning.advice.pilot import CORRUPTIONS, LEARNERS, SEVERITIES, pilot_runs
from embedpipe.finetuning.benchmark.benchmark import measure_cells
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder
from embedpipe.finetuning.benchmark.cell_runner import CellSource
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.store import FeatureStore


@dataclass
class Runner:
    """Trains networks, or reads those that an earlier call trained.

    Attributes
    ----------
    stores : sequence of FeatureStore
        The backbone of the first is trained.
    split : SplitRows
        Its test rows are the held-out rows.
    baselines : FrozenBaselines
    folder : BenchmarkFolder or None
        None if nothing is to be trained.
    by_count : dict
        The benchmark of each label count, and its runs.
    notes : list of str
    """

    stores: Sequence[FeatureStore]
    split: SplitRows
    label: str
    baselines: FrozenBaselines
    folder: BenchmarkFolder | None
    training: FineTuneOptions
    reload: ReloadOptions
    device: str | None
    progress: Progress
    by_count: dict[int, tuple[Benchmark, list[PilotRun]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def benchmarks(self) -> list[Benchmark]:
        """One for each label count, in ascending order."""
        return [benchmark for _, (benchmark, _) in sorted(self.by_count.items())]

    @property
    def runs(self) -> list[PilotRun]:
        """The runs of all label counts."""
        return [run for _, (_, runs) in sorted(self.by_count.items()) for run in runs]

    @property
    def test_rows(self) -> int:
        """The held-out rows that networks are measured on: those whose items can be read."""
        return self.benchmarks[0].test_rows if self.by_count else len(self.split.test)

    @property
    def shifted_rows(self) -> int | None:
        """Different rows of the shifted data; None if none were measured."""
        return (len(self.benchmarks[0].cells[0].shifted_correct) or None) if self.by_count else None

    @functools.cached_property
    def _best(self) -> CorrectRows | None:
        return refit_best(self.baselines, self.stores, self.split)

    def measured(self) -> list[dict[str, Any]]:
        """Return what the ledger keeps of each label count."""
        return [
            {
                "labels": labels,
                "classes": len(self.split.classes),
                "probe": fmean(run.probe for run in runs),
                "network": fmean(run.finetuned for run in runs),
                "test_rows": benchmark.test_rows,
                "seeds": len(runs),
                "minutes": fmean(run.seconds for run in runs) / 60,
            }
            for labels, (benchmark, runs) in sorted(self.by_count.items())
        ]

    def run(self, labels: int, seeds: int) -> None:
        """Train networks on ``labels`` labels, so that there are ``seeds`` of them."""
        assert self.folder is not None
        grid = BenchmarkOptions(label_counts=(labels,), seeds=seeds, corruptions=CORRUPTIONS, severities=SEVERITIES)
        source = CellSource(self.stores[0], self.split, self.label, self.training, self.reload, self.device)
        result = measure_cells(source, self.folder, LEARNERS, grid, self.progress)
        # Test images that cannot be read are missing in the cells, whose rows then do not match those of the split.
        best = self._best if result.test_rows == len(self.split.test) else None
        self.by_count[labels] = result, pilot_runs(result, best)
        self.notes += result.notes
        if best is not None:
            reference = self.baselines.reference.name
            corrupted = f"; on corrupted images with {reference}, as other baselines have no features of these"
            self.notes.append(
                f"Networks were compared with {self.baselines.best.name} or {reference}, whichever was more accurate "
                f"at a label count{corrupted if self.shifted_rows else ''}."
            )
