"""Which runs would sharpen the forecast, what they cost, and what the finished ones have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedpipe.finetuning.advice.forecasting.forecast import Experiment, Forecast, chance_to_decide, forecast_gain
from embedpipe.finetuning.advice.forecasting.gain_model import LEAST, Observed, Setting, logit
from embedpipe.finetuning.advice.pilot import TrainingCost, run_seconds
from embedpipe.finetuning.benchmark.label_sampling import smallest_label_count
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, summarise_runs
from embedpipe.finetuning.split_rows import SplitRows

#: Spread of the gain between draws of labels that is expected before runs show it, and how many runs it counts as.
EXPECTED_SPREAD, EXPECTED_RUNS = 0.015, 3
#: Share of held-out rows on which probe and network are expected to differ.
EXPECTED_DISAGREEMENT = 0.1
#: By how much the logit of the probe's accuracy is expected to fall when the labels are halved.
FALL_PER_HALVING = 0.25
#: Most runs of one label count.
MOST_SEEDS = 5


@dataclass(frozen=True)
class Evidence:
    """What is known of the data, and the finished runs on them.

    Attributes
    ----------
    target : Setting
        The best head on frozen features, with all labels.
    runs : list of PilotRun
    test_rows : int
        Held-out rows of the runs.
    min_gain : float
    """

    target: Setting
    runs: list[PilotRun]
    test_rows: int
    min_gain: float

    @property
    def observed(self) -> list[Observed]:
        """The gain at each label count, on the logit scale."""
        counts = sorted({run.labels for run in self.runs})
        return [self._observe([run for run in self.runs if run.labels == labels]) for labels in counts]

    def forecast(self) -> Forecast:
        """Return the forecast by the published pairs and the finished runs."""
        forecast = forecast_gain(self.target, self.observed, min_gain=self.min_gain)
        return replace(forecast, runs=len(self.runs))

    def _observe(self, group: Sequence[PilotRun]) -> Observed:
        labels = group[0].labels
        probe, network = (float(np.mean([getattr(run, name) for run in group])) for name in ("probe", "finetuned"))
        measured = summarise_runs(group, self.target.labels, self.test_rows, self.test_rows).gain
        freedom = len(group) - 1
        spread = (EXPECTED_RUNS * EXPECTED_SPREAD**2 + freedom * measured.variance) / (EXPECTED_RUNS + freedom)
        rows = ((measured.below + measured.above) / 2 / 1.96) ** 2
        setting = Setting(probe, labels, self.target.classes, self.target.pretraining)
        # A share of the held-out rows has no logit at 0 and 1: half a row is kept from both.
        edge = max(LEAST, 0.5 / self.test_rows)
        shown = float(logit(np.clip(network, edge, 1 - edge)) - logit(np.clip(probe, edge, 1 - edge)))
        return Observed(setting, shown, _on_logit_scale(spread / len(group) + rows, network, edge))

    def planned(self, labels: int, seeds: int) -> Observed:
        """Return what runs are expected to show; their gain is not known."""
        halvings = np.log2(self.target.labels / labels)
        accuracy = float(1 / (1 + np.exp(-(logit(self.target.accuracy) - FALL_PER_HALVING * halvings))))
        setting = Setting(accuracy, labels, self.target.classes, self.target.pretraining)
        variance = EXPECTED_SPREAD**2 / seeds + EXPECTED_DISAGREEMENT / self.test_rows
        return Observed(setting, 0.0, _on_logit_scale(variance, accuracy, max(LEAST, 0.5 / self.test_rows)))


def plan_experiments(evidence: Evidence, split: SplitRows, seeds: int, cost: TrainingCost | None) -> list[Experiment]:
    """Return the runs that could be next: new label counts up to all labels, and more seeds of those that were run."""
    pool = np.concatenate([split.train, split.validation])
    smallest, experiments = smallest_label_count(split.y, pool), []
    for labels in dict.fromkeys(len(pool) // part for part in (8, 4, 2, 1)):
        done = sum(run.labels == labels for run in evidence.runs)
        for new in range(1, min(seeds, MOST_SEEDS - done) + 1):
            if labels < smallest or new + done < 2:
                continue
            chance = chance_to_decide(
                evidence.target, evidence.observed, evidence.planned(labels, new), evidence.min_gain
            )
            time = run_seconds(labels, new, len(pool), len(split.test), cost) / 60 if cost else None
            experiments.append(Experiment(labels, new, time, chance))
    return experiments


def _on_logit_scale(variance: float, accuracy: float, edge: float) -> float:
    kept = min(max(accuracy, edge), 1 - edge)
    return variance / (kept * (1 - kept)) ** 2
