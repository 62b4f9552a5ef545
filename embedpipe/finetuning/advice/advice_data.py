"""What `advise` finds out: frozen baselines, forecasts, the next step, and all of it together."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from embedpipe.finetuning.advice.forecasting.forecast import Experiment, Forecast, Recommendation
from embedpipe.finetuning.advice.verdict import Verdict
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.result import FineTuneResult
from embedpipe.report.drawing.wording import counted, margin
from embedpipe.statistics import Estimate


@dataclass(frozen=True)
class FrozenBaseline:
    """A head on stored features, measured by cross-validation on the training and validation rows.

    Attributes
    ----------
    name : str
        Unique: ``lda on features``.
    store, backbone : str
        Path of the store; provider and name of its backbone.
    layers : list of str
        Layers whose features are joined end to end.
    head : str
    accuracy : Estimate
    difference : Estimate or None
        Its accuracy minus that of the reference on the same rows; None for the reference.
    adjusted : float or None
        The p-value of no difference, with Holm's correction for all pairs of baselines.
    verdict : str
        ``better``, ``worse``, ``equivalent`` or ``undecided`` against the reference; ``reference`` for the reference.
    """

    name: str
    store: str
    backbone: str
    layers: list[str]
    head: str
    accuracy: Estimate
    difference: Estimate | None
    adjusted: float | None
    verdict: str


@dataclass(frozen=True)
class FrozenBaselines:
    """Heads on the features of frozen backbones: the accuracy available without fine-tuning.

    Attributes
    ----------
    baselines : list of FrozenBaseline
        The best first.
    reference : FrozenBaseline
        ``logreg`` on the last layer of the first store.
    selected_accuracy : Estimate
        Accuracy of the best baseline, selected on other rows than it is measured on. The accuracy of the best of
        several on the rows that select it is optimistic.
    rows : int
        Number of training and validation rows.
    n_repeats, n_folds : int
        Repeats and folds of the cross-validation, which is stratified.
    grouped : bool
        Whether groups of rows, such as near-duplicates, were kept in one fold.
    notes : list of str
    """

    baselines: list[FrozenBaseline]
    reference: FrozenBaseline
    selected_accuracy: Estimate
    rows: int
    n_repeats: int
    n_folds: int
    grouped: bool
    notes: list[str]

    @property
    def best(self) -> FrozenBaseline:
        """The baseline with the highest mean accuracy."""
        return self.baselines[0]

    @property
    def resampling(self) -> str:
        """Description of the cross-validation."""
        together = ", near-duplicates and groups together" if self.grouped else ""
        return f"{self.n_repeats} x {self.n_folds}-fold stratified cross-validation{together}"


@dataclass(frozen=True)
class ForecastStep:
    """A forecast, and the runs that led to it.

    Attributes
    ----------
    experiment : Experiment or None
        None for the forecasts before the runs of this call.
    forecast : Forecast
    """

    experiment: Experiment | None
    forecast: Forecast


@dataclass(frozen=True)
class NextStep:
    """The command that follows the recommendation.

    Attributes
    ----------
    description : str
    verb : str
        ``advise``, ``finetune`` or ``fit``: the function of that name, and the command.
    sources : list of str
        Paths of stores.
    options : dict
        Keyword arguments.
    minutes : float or None
        Estimated time; None if it could not be measured.
    chance : float or None
        Of ``advise``: the probability that the forecast decides after it.
    """

    description: str
    verb: str
    sources: list[str]
    options: dict[str, Any]
    minutes: float | None
    chance: float | None

    @property
    def command(self) -> str:
        """The command line of this step."""
        words = ["embedpipe", self.verb, *self.sources]
        for name, option in self.options.items():
            for value in option if isinstance(option, list | tuple) else [option]:
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return shlex.join(words)


@dataclass(repr=False)
class AdviceData:
    """The attributes of `embedpipe.Advice`, which documents them; `Advice` adds the exports."""

    forecast: Forecast
    steps: list[ForecastStep]
    verdict: Verdict
    frozen_baselines: FrozenBaselines
    benchmarks: list[Benchmark]
    network: FineTuneResult | None
    label: str
    device: str
    labels: int
    held_out_rows: int
    would_change: list[str]
    next_step: NextStep | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def recommendation(self) -> Recommendation:
        """``fine-tune``, ``stay`` (with the head) or ``find out first``."""
        return self.forecast.recommendation

    @property
    def asked_gain(self) -> str:
        """The gain that is asked for, in words."""
        forecast = self.forecast
        if forecast.break_even is None:
            return margin(forecast.min_gain, "accuracy")
        expected = f"expected: {100 * forecast.mean:+z.1f} points"
        return f"{100 * forecast.break_even:.2g} points, the worth of its time ({expected})"

    def sentences(self) -> list[str]:
        """The forecast, the proof and the cost, one sentence each."""
        forecast, gain = self.forecast, self.forecast.gain
        basis = f"{forecast.runs} trained networks and" if forecast.runs else "no trained network, only"
        if forecast.ledger_rows:
            basis += f" {counted(forecast.ledger_rows, 'fine-tuning')} of other data and"
        return [
            f"Fine-tuning on all {self.labels:,} labels is expected to change accuracy by {100 * gain.value:+z.1f} "
            f"points (80 % interval {100 * gain.low:+z.1f} to {100 * gain.high:+z.1f}), from {basis} published "
            "results.",
            f"With a probability of {forecast.probability:.2f} it gains more than {self.asked_gain}.",
            *self.reasons_of_choice(),
            f"Proved at 95 %: {self.verdict.decision}.",
        ]

    def reasons_of_choice(self) -> list[str]:
        """The reason of a recommendation that neither the probability nor costs decide."""
        forecast, open_still = self.forecast, self.recommendation == "find out first"
        if forecast.is_sure or forecast.break_even is not None or (open_still and self.network is None):
            return []
        reason = "The forecast is still open" if open_still else "No further runs are likely to decide"
        return [
            f"{reason}, so the expected gain decides: {100 * forecast.mean:+z.1f} points, if the better of network and "
            "head on the validation rows is kept."
        ]
