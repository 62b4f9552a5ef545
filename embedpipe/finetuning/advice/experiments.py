"""Which runs would sharpen the forecast, what they cost, and what the finished ones have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embedpipe.finetuning.advice.forecasting.forecast import (
    Experiment,
    Forecast,
    chance_to_decide,
    forecast_gain,
    value_of_finding_out,
)
from embedpipe.finetuning.advice.forecasting.gain_model import Observed, Setting, logit
from embedpipe.finetuning.advice.forecasting.measurement import EXPECTED_SPREAD, expected_variance, observe
from embedpipe.finetuning.advice.pilot import TrainingCost, run_seconds
from embedpipe.finetuning.benchmark.label_sampling import smallest_label_count
from embedpipe.finetuning.benchmark.paired_runs import PilotRun, summarise_runs
from embedpipe.finetuning.split_rows import SplitRows

#: As how many runs the expected spread of the gain between draws of labels counts.
EXPECTED_RUNS = 3
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
        The gain that is asked for; with ``point_seconds`` the one that pays for the time of fine-tuning.
    point_seconds : float or None
        The time that a point of accuracy is worth.
    ledger : list of Observed
        Gains on other data of this user.
    """

    target: Setting
    runs: list[PilotRun]
    test_rows: int
    min_gain: float
    point_seconds: float | None = None
    ledger: list[Observed] = field(default_factory=list)

    @property
    def observed(self) -> list[Observed]:
        """The gains at each label count, and those of the ledger, on the logit scale."""
        counts = sorted({run.labels for run in self.runs})
        own = [self._observe([run for run in self.runs if run.labels == labels]) for labels in counts]
        return [*own, *self.ledger]

    def forecast(self) -> Forecast:
        """Return the forecast by the published pairs, the ledger and the finished runs."""
        forecast = forecast_gain(self.target, self.observed, min_gain=self.min_gain)
        return replace(forecast, runs=len(self.runs), ledger_rows=len(self.ledger))

    def _observe(self, group: Sequence[PilotRun]) -> Observed:
        labels = group[0].labels
        probe, network = (float(np.mean([getattr(run, name) for run in group])) for name in ("probe", "finetuned"))
        measured = summarise_runs(group, self.target.labels, self.test_rows, self.test_rows).gain
        freedom = len(group) - 1
        spread = (EXPECTED_RUNS * EXPECTED_SPREAD**2 + freedom * measured.variance) / (EXPECTED_RUNS + freedom)
        rows = ((measured.below + measured.above) / 2 / 1.96) ** 2
        setting = Setting(probe, labels, self.target.classes, self.target.pretraining)
        return observe(setting, network, spread / len(group) + rows, self.test_rows)

    def planned(self, labels: int, seeds: int) -> Observed:
        """Return what runs are expected to show; their gain is not known."""
        halvings = np.log2(self.target.labels / labels)
        accuracy = float(1 / (1 + np.exp(-(logit(self.target.accuracy) - FALL_PER_HALVING * halvings))))
        setting = Setting(accuracy, labels, self.target.classes, self.target.pretraining)
        return observe(setting, accuracy, expected_variance(seeds, self.test_rows), self.test_rows)


def plan_experiments(evidence: Evidence, split: SplitRows, seeds: int, cost: TrainingCost | None) -> list[Experiment]:
    """Return the runs that could be next: new label counts up to all labels, and more seeds of those that were run."""
    pool = np.concatenate([split.train, split.validation])
    smallest, experiments = smallest_label_count(split.y, pool), []
    for labels in dict.fromkeys(len(pool) // part for part in (8, 4, 2, 1)):
        done = sum(run.labels == labels for run in evidence.runs)
        for new in range(1, min(seeds, MOST_SEEDS - done) + 1):
            if labels < smallest or new + done < 2:
                continue
            time = run_seconds(labels, new, len(pool), len(split.test), cost) / 60 if cost else None
            known = evidence.target, evidence.observed, evidence.planned(labels, new), evidence.min_gain
            if evidence.point_seconds is None or time is None:
                experiments.append(Experiment(labels, new, time, chance_to_decide(*known)))
            else:
                added, chance = value_of_finding_out(*known)
                net = added - gain_worth(60 * time, evidence.point_seconds)
                experiments.append(Experiment(labels, new, time, chance, net))
    return experiments


def gain_worth(seconds: float, point_seconds: float) -> float:
    """Return the gain, as a fraction, that is worth some time."""
    return 0.01 * seconds / point_seconds


def assess(
    evidence: Evidence, split: SplitRows, seeds: int, cost: TrainingCost | None
) -> tuple[Forecast, list[Experiment]]:
    """Return the forecast, which knows whether it pays to find out more, and the runs that could be next."""
    experiments = plan_experiments(evidence, split, seeds, cost)
    break_even = None if evidence.point_seconds is None else evidence.min_gain
    pays = any(each.pays for each in experiments)
    return replace(evidence.forecast(), break_even=break_even, pays_to_find_out=pays), experiments
