"""`Inquiry`: one call of `advise`, step by step: the time of training, the runs that find out, and what to do next."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import EmbedpipeError
from embedpipe.finetuning.advice.advice_data import ForecastStep, FrozenBaselines, NextStep
from embedpipe.finetuning.advice.experiments import Evidence, assess, gain_worth
from embedpipe.finetuning.advice.forecasting.forecast import Experiment, Forecast, cheapest_experiment
from embedpipe.finetuning.advice.forecasting.gain_model import Observed, Setting
from embedpipe.finetuning.advice.forecasting.pretraining import pretraining_of
from embedpipe.finetuning.advice.frozen_baselines import NORMALISED, REFERENCE_HEAD
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.advice.pilot import LEARNERS, TrainingCost, time_training
from embedpipe.finetuning.advice.runs import Runner
from embedpipe.finetuning.advice.verdict import Verdict, judge
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.run_folder import lock_folder
from embedpipe.finetuning.split_rows import SplitRows
from embedpipe.report.drawing.wording import counted, rough_duration
from embedpipe.store import FeatureStore

#: Largest gain that is asked for, however little a point is worth.
MOST_GAIN = 0.99
#: Options of `advise` that no other verb has.
ADVISE_ONLY = {each.name for each in dataclasses.fields(AdviseOptions)}


@dataclass
class Inquiry:
    """What is asked about the labels of a store, and what was found out so far.

    Parameters
    ----------
    stores : sequence of FeatureStore
        The backbone of the first may be trained.
    label : str
    split, held : SplitRows
        The split of the first store, and the one of the runs, whose test rows are held out from its training rows.
    baselines : FrozenBaselines
    folder : BenchmarkFolder, optional
        Of the runs; without one there are none.
    options, training, reload
        Those of `advise`.
    device : str, optional
    progress : bool, optional
    known : list of Observed
        Gains on other data of this user.
    cost : TrainingCost, optional
        None until it was measured.
    steps : list of ForecastStep
        The forecast from published results, with the runs of earlier calls, and after each run of this call.
    planned : list of Experiment
        The runs that could be next.
    notes : list of str
    """

    stores: Sequence[FeatureStore]
    label: str
    split: SplitRows
    held: SplitRows
    baselines: FrozenBaselines
    folder: BenchmarkFolder | None
    options: AdviseOptions
    training: FineTuneOptions
    reload: ReloadOptions
    device: str | None
    progress: bool | None
    known: list[Observed] = field(default_factory=list)
    cost: TrainingCost | None = None
    steps: list[ForecastStep] = field(default_factory=list)
    planned: list[Experiment] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def labels(self) -> int:
        """Number of training and validation rows."""
        return len(self.split.train) + len(self.split.validation)

    @property
    def min_gain(self) -> float:
        """The gain that is asked for: the given one, or what pays for the time of training."""
        if self.cost is None or self.options.point_seconds is None:
            return self.options.min_gain
        return min(gain_worth(self.cost.full, self.options.point_seconds), MOST_GAIN)

    @property
    def forecast(self) -> Forecast:
        """The latest forecast."""
        return self.steps[-1].forecast

    @cached_property
    def runner(self) -> Runner:
        """Trains the networks of the runs."""
        return Runner(
            self.stores,
            self.held,
            self.label,
            self.baselines,
            self.folder,
            self.training,
            self.reload,
            self.device,
            Progress(self.progress),
        )

    def verdict(self) -> Verdict:
        """Return what the runs so far prove."""
        return judge(
            self.runner.runs,
            probe_accuracy=self.baselines.selected_accuracy,
            total_labels=len(self.held.train) + len(self.held.validation),
            test_rows=self.runner.test_rows,
            min_gain=self.min_gain,
            shift_margin=self.options.shift_margin,
            shifted_rows=self.runner.shifted_rows,
            full_run_seconds=None if self.cost is None else self.cost.full,
        )

    def measure_cost(self, *, needed: bool) -> None:
        """Time a few steps of training, unless the baselines leave nothing to gain.

        A network that cannot be trained is a note, or an error if the time is ``needed``.
        """
        if self.options.point_seconds is None and self.verdict().decision == "not worth it":
            return
        try:
            with Progress(self.progress).step("timing a few steps of training"):
                self.cost = time_training(self.stores[0], self.held, self.training, self.reload, self.device)
        except EmbedpipeError as error:
            if needed:
                raise
            self.notes.append(f"The time of training could not be measured: {error}")

    def find_out(self, until: float | None) -> None:
        """Forecast by the runs that are finished; then run what can be expected to decide until it is decided.

        ``until`` is the time of `time.perf_counter` at which the budget ends; None: nothing is run.
        """
        with contextlib.nullcontext() if self.folder is None else lock_folder(self.folder.path):
            finished = {} if self.folder is None else self.folder.finished_seeds(LEARNERS, self.training.seed)
            self._assess(None)
            for labels, seeds in finished.items():
                self.runner.run(labels, seeds)
            if finished:
                self._assess(None)
            while until is not None and self.forecast.recommendation == "find out first":
                left = (until - time.perf_counter()) / 60
                possible = [each for each in self.planned if each.minutes and each.minutes <= left]
                experiment = cheapest_experiment(possible)
                if experiment is None:
                    self.notes.append(_why_no_more_runs(self.planned, left))
                    break
                done = sum(run.labels == experiment.labels for run in self.runner.runs)
                self.runner.run(experiment.labels, done + experiment.seeds)
                self._assess(experiment)

    def _assess(self, experiment: Experiment | None) -> None:
        """Forecast by all runs so far, the last of which were those of ``experiment``."""
        accuracy, classes = self.baselines.selected_accuracy.value, len(self.split.classes)
        evidence = Evidence(
            Setting(accuracy, self.labels, classes, pretraining_of(self.stores[0].spec)),
            self.runner.runs,
            self.runner.test_rows,
            self.min_gain,
            self.options.point_seconds,
            self.known,
        )
        forecast, self.planned = assess(evidence, split=self.held, seeds=self.options.seeds, cost=self.cost)
        self.steps.append(ForecastStep(experiment, forecast))

    def next_step(self, to: str, chosen: Mapping[str, Any]) -> NextStep | None:
        """Return the command that follows the recommendation; None if there are no runs left that could decide.

        ``to`` is the folder for further runs, ``chosen`` are the options of the call that differ from the defaults.
        """
        if self.forecast.recommendation == "fine-tune":
            path, minutes = self.stores[0].path, None if self.cost is None else self.cost.full / 60
            shared = {name: value for name, value in chosen.items() if name not in ADVISE_ONLY}
            options = {**shared, "to": f"{Path(path).stem}.tuned"}
            return NextStep("fine-tune", "finetune", [path], options, minutes, None)
        if self.forecast.recommendation == "stay":
            return self._fit_best_head(chosen)
        experiment = cheapest_experiment(self.planned)
        if experiment is None:
            return None
        description = f"{counted(experiment.seeds, 'network')} on {experiment.labels:,} labels"
        minutes = experiment.minutes
        budget = {"time_budget": "1h" if minutes is None else f"{math.ceil(1.5 * minutes + 1)}min"}
        paths = [store.path for store in self.stores]
        return NextStep(description, "advise", paths, {**chosen, **budget, "to": to}, minutes, experiment.chance)

    def _fit_best_head(self, chosen: Mapping[str, Any]) -> NextStep:
        best, reference = self.baselines.best, self.baselines.reference
        head = REFERENCE_HEAD if best.head == NORMALISED else best.head
        options: dict[str, Any] = {"label": chosen["label"]} if "label" in chosen else {}
        options |= {"head": head} if head != REFERENCE_HEAD else {}
        options |= {"layer": "+".join(best.layers)} if best.layers != reference.layers else {}
        to_head = f"{Path(best.store).stem}.head"
        return NextStep("fit the best head", "fit", [best.store], {**options, "to": to_head}, None, None)


def _why_no_more_runs(planned: Sequence[Experiment], minutes_left: float) -> str:
    if not any(each.pays for each in planned):
        return "No further runs are likely to decide: there are too few labels, or enough runs of all label counts."
    cheapest = min(each.minutes or 0.0 for each in planned if each.pays)
    return (
        "The time budget ended before the forecast decided: the shortest runs left take "
        f"{rough_duration(cheapest)}, and {rough_duration(max(minutes_left, 0.0))} is left."
    )
