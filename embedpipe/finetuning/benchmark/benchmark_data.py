"""The data of a benchmark, which statistics, charts and page read. `Benchmark` adds the methods that need these."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.statistics import Estimate

#: A head on frozen features; a network that starts from that head; one with a random head; one with random weights; a
#: text encoder that brings texts of a class together.
Learner = Literal["linear-probe", "lp-ft", "finetune", "scratch", "contrastive"]
ALL_LEARNERS: tuple[Learner, ...] = get_args(Learner)
#: Those for every network, which are the default.
LEARNERS = ALL_LEARNERS[:4]
#: Of fewer seeds, pages and pictures show no intervals: those of two seeds cover nearly everything.
SEEDS_FOR_INTERVALS = 3


@dataclass(frozen=True)
class Cell:
    """One learner, trained on one draw of labels and measured on the test rows.

    Attributes
    ----------
    learner : str
    labels : int
        Number of labels: training and validation rows together.
    seed : int
        Seed of the draw of rows, their order, the augmentation and the first weights. Learners with the same number of
        labels and seed learn from the same rows.
    accuracy, log_loss : float
        On the test rows.
    initial_accuracy : float
        Accuracy on the validation rows before any training; for the linear probe its accuracy there.
    epochs : list of Epoch
        Empty for the linear probe.
    best_epoch : int
        The epoch whose weights were kept.
    seconds : float
        Training time; for the linear probe the time of embedding and fitting.
    shifted : dict
        Corruption -> accuracy at each severity, in the order of ``Benchmark.severities``. For the user's own shifted
        rows one value under ``shifted``.
    correct : str
        Which test rows are classified correctly, as packed bits in hexadecimal; see `correct_rows`.
    shifted_correct : list of float
        For each test row, the fraction of its corruptions that are classified correctly. For the user's own shifted
        rows 0 or 1 for each of them. Empty if neither were measured.
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
        """Return which of ``rows`` test rows are classified correctly, (rows,)."""
        packed = np.frombuffer(bytes.fromhex(self.correct), np.uint8)
        return np.unpackbits(packed, count=rows).astype(bool)

    @property
    def shifted_accuracy(self) -> float | None:
        """Mean accuracy over all corruptions and severities; None if none were measured."""
        values = [value for accuracies in self.shifted.values() for value in accuracies]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class LearnerDifference:
    """One learner minus another, the reference, at one number of labels; seeds are paired.

    Attributes
    ----------
    learner, reference : str
    labels : int
    accuracy : Estimate
        Difference of the accuracy on the test rows.
    initial_accuracy : Estimate
        Difference of the validation accuracy before training.
    after_one_epoch : Estimate, optional
        Difference of the validation accuracy after one epoch; None if one of them has no epochs.
    slope : Estimate, optional
        Difference of the gain of validation accuracy per epoch, from the first weights to the best.
    shifted_accuracy : Estimate, optional
        Difference of the mean accuracy on shifted test images.
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
    """Labels and training time that one learner needs to be as accurate as another, the reference.

    Attributes
    ----------
    learner, reference : str
    accuracy : float
        The accuracy of ``reference`` at its largest number of labels.
    labels : Estimate, optional
        Labels that ``learner`` needs for that accuracy, as a fraction of those of ``reference``, interpolated over the
        logarithm of the labels. If the smallest number of labels reaches it already, ``low`` is 0, as fewer may be
        enough. None for one seed, if a seed reaches it with no number of labels, and if ``reference`` is not better
        than the majority class.
    seconds : Estimate, optional
        Training time for that accuracy, in the same way.
    """

    learner: Learner
    reference: Learner
    accuracy: float
    labels: Estimate | None
    seconds: Estimate | None

    @property
    def is_informative(self) -> bool:
        """Whether the interval of the labels says more than "from 0 to above 1"."""
        return self.labels is not None and (self.labels.low > 0 or self.labels.high < 1)


@dataclass(repr=False)
class BenchmarkData:
    """Data of a benchmark: plain values and dataclasses. See `Benchmark` for the attributes."""

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
    def seeds_warning(self) -> str:
        """Remark on the intervals if there are few seeds; empty if there are enough."""
        if len(self.seeds) >= SEEDS_FOR_INTERVALS:
            return ""
        problem = (
            "One seed is too few for intervals"
            if len(self.seeds) == 1
            else f"{len(self.seeds)} seeds are too few for intervals"
        )
        return f"{problem}: run it again with more ({option('seeds', 5)}), finished cells are kept."

    def cells_of(self, learner: Learner, labels: int) -> list[Cell]:
        """Return the cells of a learner at a number of labels, in the order of the seeds."""
        cells = [cell for cell in self.cells if (cell.learner, cell.labels) == (learner, labels)]
        return sorted(cells, key=lambda cell: cell.seed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)
