"""Options of `embedpipe.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from embedpipe.errors import UsageError, nearest
from embedpipe.evaluation.metrics import FIGURES
from embedpipe.heads.options import Task
from embedpipe.neighbours.near import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is compared, and on which splits."""

    label: str = field(default="label", metadata={"help": "The column to learn."})
    task: Task | None = field(
        default=None,
        metadata={"help": "classification or regression; where not given, numbers with fractions are regression."},
    )
    layer: tuple[str, ...] = field(
        default=(),
        metadata={"help": "The layers to compare, a+b for two joined; all of each store's where not given; repeat it."},
    )
    metric: str | None = field(
        default=None,
        metadata={"help": "What the order goes by: accuracy, balanced_accuracy, macro_f1, log_loss, brier; r2, mae."},
    )
    margin: float = field(
        default=0.01, metadata={"help": "Differences of the metric up to this make no difference in practice."}
    )
    folds: int = field(default=5, metadata={"help": "Folds of the cross-validation, where the store has no splits."})
    repeats: int = field(default=5, metadata={"help": "How often the folds are drawn anew."})
    group: str | None = field(
        default=None, metadata={"help": "A column: rows with the same value stay in one fold, as of one patient."}
    )
    near_duplicates: NearDuplicates = field(
        default=NEAR_DUPLICATE_COSINE,
        metadata={"help": "Centred cosine from which rows are near-duplicates and stay in one fold, or off."},
    )
    splits: str | None = field(
        default=None,
        metadata={"help": "A .parquet file of splits: those in it are used; where there is none, it is written."},
    )

    def __post_init__(self) -> None:
        tasks = [task for task in get_args(Task) if task != "multilabel"]
        if self.task is not None and self.task not in tasks:
            raise UsageError(
                f"task={self.task!r} is not compared: {' and '.join(tasks)} are; `embedpipe fit` measures the others"
            )
        known = [name for figures in FIGURES.values() for name in figures]
        if self.metric is not None and self.metric not in known:
            raise UsageError(f"metric={self.metric!r} is not one of {', '.join(known)}{nearest(self.metric, known)}")
        if not self.margin >= 0:
            raise UsageError(f"margin={self.margin} is no width: 0.01 is one point of accuracy")
        check_near_duplicates(self.near_duplicates)
