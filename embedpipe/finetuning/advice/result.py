"""What `embedpipe.advise` found: the verdict, what is cheap, the pilot, and what would settle what is open."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

from embedpipe.finetuning.advice.verdict import Verdict
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.statistics import Estimate


@dataclass(frozen=True)
class FrozenBaseline:
    """A head on stored vectors, measured by cross-validation on training and validation rows.

    Attributes
    ----------
    name : str
        Such as ``lda on features``; unique.
    store, backbone : str
        Path of the store; provider and name.
    layers : list of str
        Names of the layers, joined end to end.
    head : str
    accuracy : Estimate
    difference : Estimate or None
        Its accuracy less the plain probe's on the same rows; None for the plain probe itself.
    adjusted : float or None
        The p-value of no difference, by Holm's correction for all pairs of options.
    verdict : str
        ``better``, ``worse``, ``equivalent`` or ``undecided`` beside the plain probe; ``reference`` for itself.
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
    """All that can be had without training the network.

    Attributes
    ----------
    options : list of FrozenBaseline
        The best first.
    plain : FrozenBaseline
        ``logreg`` on the last layer of the first store.
    chosen : Estimate
        Accuracy of the best option, where it is chosen on other rows than it is measured on: the best of many is
        always lucky on the rows that it was the best on.
    rows : int
        Training and validation rows that took part.
    protocol : str
        How it was measured, in words.
    notes : list of str
    """

    options: list[FrozenBaseline]
    plain: FrozenBaseline
    chosen: Estimate
    rows: int
    protocol: str
    notes: list[str]

    @property
    def best(self) -> FrozenBaseline:
        """The option with the best mean."""
        return self.options[0]


@dataclass(frozen=True)
class NextStep:
    """The run that would settle most likely what is open.

    Attributes
    ----------
    description : str
        What it is, in words.
    verb : str
        ``advise`` or ``benchmark``: the function of that name, and the command.
    sources : list of str
        Stores.
    options : dict
        Keyword arguments.
    minutes : float or None
        What it takes, about; None where that could not be measured.
    """

    description: str
    verb: str
    sources: list[str]
    options: dict[str, Any]
    minutes: float | None

    @property
    def command(self) -> str:
        """The run as it is typed."""
        words = ["embedpipe", self.verb, *self.sources]
        for name, given in self.options.items():
            values = given if isinstance(given, list | tuple) else [given]
            for value in [",".join(values)] if name == "learners" else values:
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return shlex.join(words)


@dataclass
class Advice:
    """Whether fine-tuning is worth it, and why.

    Attributes
    ----------
    verdict : Verdict
    frozen_baselines : FrozenBaselines
        What can be had without it.
    pilot : Benchmark or None
        None where none was run.
    label, device : str
        ``device`` is where the pilot or the timing ran; empty where nothing was trained.
    labels, test_rows : int
        Training and validation rows together; held-out rows, which nothing but the pilot reads.
    would_change : list of str
        What would change its mind.
    next_step : NextStep or None
        What would settle it, where it is open.
    notes : list of str
    seconds : float
        Wall time of it all.
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
