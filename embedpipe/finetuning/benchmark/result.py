"""What a benchmark of learners found: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.statistics import Estimate

#: A head on frozen features; a network that begins with that head; one with a random head; one with random weights.
Learner = Literal["linear-probe", "lp-ft", "finetune", "scratch"]
LEARNERS: tuple[Learner, ...] = ("linear-probe", "lp-ft", "finetune", "scratch")
#: So few seeds leave Student's t a quantile of 4 and more.
FEW_SEEDS = 2


@dataclass(frozen=True)
class Cell:
    """One learner, trained on one draw of labels, measured on the test rows.

    Attributes
    ----------
    learner : str
    labels : int
        The label budget: training and validation rows together.
    seed : int
        Of the draw of rows, their order, their augmentation and the first weights. Learners of the same budget and seed
        learn from the same rows.
    accuracy, log_loss : float
        On the test rows.
    initial_accuracy : float
        Accuracy on the validation rows before any training; the probe's own for the probe.
    epochs : list of Epoch
        Empty for the probe.
    best_epoch : int
        The epoch that was kept.
    seconds : float
        Of training, on ``device``; of a probe's fit, embedding included.
    shifted : dict
        Corruption -> accuracy at each severity measured, in the order of ``Benchmark.severities``; under ``shifted``
        one value on the user's own shifted rows.
    correct : str
        Which test rows are right: packed bits, in hexadecimal; see `correct_rows`.
    shifted_correct : list of float
        For each test row, in which share of its corruptions it is right; where the user's own shifted rows were
        measured, for each of those whether it is; empty where neither were.
    """

    learner: Learner
    labels: int
    seed: int
    accuracy: float
    log_loss: float
    initial_accuracy: float
    epochs: list[Epoch]
    best_epoch: int
    seconds: float
    shifted: dict[str, list[float]] = field(default_factory=dict)
    correct: str = ""
    shifted_correct: list[float] = field(default_factory=list)

    def correct_rows(self, rows: int) -> npt.NDArray[np.bool_]:
        """Return which of so many test rows are right, (rows,)."""
        packed = np.frombuffer(bytes.fromhex(self.correct), np.uint8)
        return np.unpackbits(packed, count=rows).astype(bool)

    @property
    def shifted_accuracy(self) -> float | None:
        """Mean accuracy over all corruptions and severities; None where none were measured."""
        values = [value for each in self.shifted.values() for value in each]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class LearnerDifference:
    """One learner less another at one label budget.

    Attributes
    ----------
    learner, reference : str
    labels : int
    accuracy : Estimate
        Difference of the accuracy on test rows, seeds paired.
    initial_accuracy : Estimate
        Difference of the accuracy before training.
    after_one_epoch : Estimate, optional
        Difference after one epoch; None where one of them has no epochs.
    slope : Estimate, optional
        Difference of the accuracy won per epoch, from the first weights to the best.
    shifted_accuracy : Estimate, optional
        Difference of the mean accuracy on corrupted test images.
    """

    learner: Learner
    reference: Learner
    labels: int
    accuracy: Estimate
    initial_accuracy: Estimate
    after_one_epoch: Estimate | None = None
    slope: Estimate | None = None
    shifted_accuracy: Estimate | None = None


@dataclass(frozen=True)
class Savings:
    """What one learner saves against another for equal accuracy.

    Attributes
    ----------
    learner, reference : str
    accuracy : float
        What both reach: that of ``reference`` at its largest budget.
    labels : Estimate, optional
        Labels that ``learner`` needs for it, as a share of those of ``reference``; None where there is one seed, or
        one that does not reach it with any budget that was measured, and where ``reference`` is not told apart from
        a guess. Between two budgets by a line over the logarithm of the labels. Where a smallest budget reaches it
        already, how much less would is not known, and ``low`` is 0.
    seconds : Estimate, optional
        Training time for it, in the same way.
    """

    learner: Learner
    reference: Learner
    accuracy: float
    labels: Estimate | None
    seconds: Estimate | None

    @property
    def known(self) -> bool:
        """Whether more is known of the labels than that they are at most more than all."""
        return self.labels is not None and (self.labels.low > 0 or self.labels.high < 1)


@dataclass
class Benchmark:
    """Learning curves of learners on the same draws, rows and seeds.

    Attributes
    ----------
    data, backbone, label, device : str
    classes : list
    label_counts : list of int
        Label budgets, going up.
    seeds : list of int
    learners : list of str
    test_rows : int
        Measured once for each cell, after its training.
    severities : list of int
        Of the corruptions; empty where none were measured.
    cells : list of Cell
    differences : list of LearnerDifference
    savings : list of Savings
    splits_id : str
        SHA-256 over the ids and roles of the splits.
    notes : list of str
    seconds : float
        Of training and measuring all cells, those of earlier runs included.
    majority_accuracy : float
        Accuracy of always saying the commonest class of the test rows.
    """

    data: str
    backbone: str
    label: str
    device: str
    classes: list[Any]
    label_counts: list[int]
    seeds: list[int]
    learners: list[Learner]
    test_rows: int
    severities: list[int]
    cells: list[Cell]
    differences: list[LearnerDifference]
    savings: list[Savings]
    splits_id: str
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    majority_accuracy: float = 0.0

    @property
    def caution(self) -> str:
        """What to think of the intervals where there are few seeds; empty where there are enough."""
        if len(self.seeds) > FEW_SEEDS:
            return ""
        if len(self.seeds) == 1:
            return "One seed leaves differences open: more give intervals (--seeds 5); finished cells are kept."
        return f"{len(self.seeds)} seeds leave intervals wide: more narrow them (--seeds 5); finished cells are kept."

    def cells_of(self, learner: Learner, labels: int) -> list[Cell]:
        """Return the cells of a learner at a label budget, in the order of the seeds."""
        found = [cell for cell in self.cells if (cell.learner, cell.labels) == (learner, labels)]
        return sorted(found, key=lambda cell: cell.seed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)
