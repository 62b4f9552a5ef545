"""`Advice`: the result of `advise`."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.finetuning.advice.verdict import Verdict, rough_duration
from embedpipe.finetuning.benchmark.result import Benchmark
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
class NextStep:
    """The command that can be expected to decide an open verdict.

    Attributes
    ----------
    description : str
    verb : str
        ``advise`` or ``benchmark``: the function of that name, and the command.
    sources : list of str
        Paths of stores.
    options : dict
        Keyword arguments.
    minutes : float or None
        Estimated time; None if it could not be measured.
    """

    description: str
    verb: str
    sources: list[str]
    options: dict[str, Any]
    minutes: float | None

    @property
    def command(self) -> str:
        """The command line of this step."""
        words = ["embedpipe", self.verb, *self.sources]
        for name, option in self.options.items():
            values = option if isinstance(option, list | tuple) else [option]
            for value in [",".join(values)] if name == "learners" else values:
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return shlex.join(words)


@dataclass(repr=False)
class Advice:
    """Whether fine-tuning is worth it, and the evidence; what `embedpipe.advise` returns.

    Attributes
    ----------
    verdict : Verdict
        The decision with gain, trend, ceiling and reasons.
    frozen_baselines : FrozenBaselines
        The accuracy available without fine-tuning.
    pilot : Benchmark or None
        None if no pilot was run.
    label : str
        The column that was learned.
    device : str
        Where the pilot or the timing ran; empty if nothing was trained.
    labels : int
        Number of training and validation rows.
    test_rows : int
        Number of held-out rows, which only the pilot reads.
    would_change : list of str
        What would change the verdict, as sentences.
    next_step : NextStep or None
        The command that can be expected to decide; None if the verdict is decided, or if no run would decide it.
    notes : list of str
    seconds : float
        Total wall time.

    Examples
    --------
    >>> advice = embedpipe.advise("photos.features")  # doctest: +SKIP
    >>> advice.verdict.decision  # doctest: +SKIP
    "can't tell yet"
    >>> advice.next_step.command  # doctest: +SKIP
    'embedpipe advise photos.features --pilot --to photos.pilot'
    """

    verdict: Verdict
    frozen_baselines: FrozenBaselines
    pilot: Benchmark | None
    label: str
    device: str
    labels: int
    test_rows: int
    would_change: list[str]
    next_step: NextStep | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        plain = asdict(self)
        if self.next_step:
            plain["next_step"]["command"] = self.next_step.command
        return plain

    def __repr__(self) -> str:
        accuracy = self.frozen_baselines.selected_accuracy.value
        gain = self.verdict.gain
        shown = "no pilot" if gain is None else f"gain {100 * gain.value:+.1f} points"
        return f"Advice({self.verdict.decision!r}: frozen features reach {percent(accuracy)}, {shown})"

    def _repr_html_(self) -> str:
        best = self.frozen_baselines.best
        rows: list[tuple[str, object]] = [
            ("fine-tuning", self.verdict.decision),
            *(("evidence", sentence) for sentence in self.verdict.evidence),
            ("best on frozen features", f"{best.name}: {percent(best.accuracy.value)}"),
            *(("would change it", sentence) for sentence in self.would_change),
        ]
        if self.next_step:
            minutes = self.next_step.minutes
            time = "" if minutes is None else f" ({rough_duration(minutes)})"
            rows.append(("next step", f"{self.next_step.command}{time}"))
        return html_table("Advice", rows)
