"""`Advice`: the result of `advise`."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.finetuning.advice.forecasting.forecast import Experiment, Forecast, Recommendation
from embedpipe.finetuning.advice.verdict import Verdict, rough_duration
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.result import FineTuneResult
from embedpipe.report.drawing.wording import margin
from embedpipe.statistics import Estimate
from embedpipe.statistics.percentages import percent


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
        None for the forecast before the runs of this call.
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
class Advice:
    """Whether to fine-tune, and the evidence; what `embedpipe.advise` returns.

    Attributes
    ----------
    forecast : Forecast
        What fine-tuning on all labels is expected to gain, and the probability that it exceeds the minimum gain.
    steps : list of ForecastStep
        The forecast before the runs of this call, and after each of them.
    verdict : Verdict
        The decision of the strict rule, which asks for proof, with gain, trend, ceiling and reasons.
    frozen_baselines : FrozenBaselines
        The accuracy available without fine-tuning.
    benchmarks : list of Benchmark
        The runs, one result for each label count, in ascending order.
    network : FineTuneResult or None
        The network that ``act`` trained, with its accuracy on the test rows.
    label : str
        The column that was learned.
    device : str
        Where the timing ran; empty if nothing was trained.
    labels : int
        Number of training and validation rows.
    held_out_rows : int
        Number of training and validation rows on which networks are measured, and which they do not learn from.
    would_change : list of str
        What would change the strict verdict, as sentences.
    next_step : NextStep or None
        The command that follows the recommendation; None if no runs are left that could decide.
    notes : list of str
    seconds : float
        Total wall time.

    Examples
    --------
    >>> advice = embedpipe.advise("photos.features")  # doctest: +SKIP
    >>> advice.recommendation, advice.verdict.decision  # doctest: +SKIP
    ('find out first', "can't tell yet")
    >>> advice.next_step.command  # doctest: +SKIP
    'embedpipe advise photos.features --time-budget 12min --to photos.advice'
    """

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

    def sentences(self) -> list[str]:
        """The forecast, the proof and the cost, one sentence each."""
        forecast, gain = self.forecast, self.forecast.gain
        basis = f"{forecast.runs} trained networks and" if forecast.runs else "no trained network, only"
        return [
            f"Fine-tuning on all {self.labels:,} labels is expected to change accuracy by {100 * gain.value:+.1f} "
            f"points (80 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}), from {basis} published results.",
            f"With a probability of {forecast.probability:.2f} it gains more than "
            f"{margin(forecast.min_gain, 'accuracy')}.",
            f"Proved at 95 %: {self.verdict.decision}.",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        plain = {"recommendation": self.recommendation, **asdict(self)}
        plain["network"] = self.network.to_dict() if self.network else None
        if self.next_step:
            plain["next_step"]["command"] = self.next_step.command
        return plain

    def __repr__(self) -> str:
        accuracy = self.frozen_baselines.selected_accuracy.value
        return (
            f"Advice({self.recommendation!r}: frozen features reach {percent(accuracy)}, expected gain "
            f"{100 * self.forecast.gain.value:+.1f} points)"
        )

    def _repr_html_(self) -> str:
        best = self.frozen_baselines.best
        rows: list[tuple[str, object]] = [
            ("recommendation", self.recommendation),
            *(("forecast", sentence) for sentence in self.sentences()),
            ("best on frozen features", f"{best.name}: {percent(best.accuracy.value)}"),
        ]
        if self.next_step:
            minutes = self.next_step.minutes
            time = "" if minutes is None else f" ({rough_duration(minutes)})"
            rows.append(("next step", f"{self.next_step.command}{time}"))
        return html_table("Advice", rows)
