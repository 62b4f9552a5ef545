"""Options of `embedpipe.evaluate`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import get_args

from embedpipe._utils.machine.memory import parse_size
from embedpipe._utils.option_names import option
from embedpipe._utils.options import split_names
from embedpipe.errors import UsageError, require_one_of
from embedpipe.evaluation.metrics import METRICS
from embedpipe.heads.options import FEATURES_HELP, MEMORY_HELP, Task
from embedpipe.heads.zero_shot.prompts import CLASSES_HELP, TEMPLATES_HELP, check_templates
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates
from embedpipe.splits.options import check_folds

#: Saved results hold numbers up to about this one.
HIGHEST_MARGIN = 1e18


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Labels, layers, metric and resampling of a comparison."""

    label: str = field(default="label", metadata={"help": "Column of labels to learn."})
    task: Task | None = field(
        default=None,
        metadata={"help": "classification or regression; by default regression for numbers with fractions."},
    )
    layer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Layers to compare, a+b for two joined; may be repeated. By default all layers of each store."
        },
    )
    features: tuple[str, ...] = field(
        default=(),
        metadata={"help": f"{FEATURES_HELP} Every head that can is compared with and without them."},
    )
    classes: tuple[str, ...] = field(default=(), metadata={"help": CLASSES_HELP})
    templates: tuple[str, ...] = field(default=(), metadata={"help": TEMPLATES_HELP})
    metric: str | None = field(
        default=None,
        metadata={
            "help": "Metric that orders the candidates: accuracy, balanced_accuracy, macro_f1, roc_auc, log_loss, "
            "brier; r2, mae, rmse. By default accuracy or r2."
        },
    )
    margin: float = field(
        default=0.01,
        metadata={"help": "Half the width of the region of practical equivalence, in units of the metric."},
    )
    folds: int = field(default=5, metadata={"help": "Folds of the cross-validation, for stores without a test split."})
    repeats: int = field(default=5, metadata={"help": "Repeats of the cross-validation, with new folds."})
    seed: int = field(default=0, metadata={"help": "Seed of the folds, and of what a protocol draws."})
    group: str | None = field(
        default=None, metadata={"help": "Column of groups: rows with the same value stay in one fold (a patient)."}
    )
    near_duplicates: NearDuplicates = field(
        default=NEAR_DUPLICATE_COSINE,
        metadata={
            "help": "Centred cosine from which rows without perceptual hashes are near-duplicates, or off. "
            "Near-duplicates stay in one fold."
        },
    )

    memory: str | None = field(default=None, metadata={"help": MEMORY_HELP})

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", split_names("features", self.features))
        check_templates(self.templates)
        parse_size("memory", self.memory)
        tasks = [task for task in get_args(Task) if task != "multilabel"]
        if self.task is not None and self.task not in tasks:
            raise UsageError(
                f"{option('task')} must be {' or '.join(tasks)}, got {self.task!r}: `embedpipe fit` measures other "
                "tasks"
            )
        if self.metric and re.fullmatch(r"m?ap|(recall|precision|ndcg)([@_]\d+)?", self.metric.lower()):
            raise UsageError(
                f"{option('metric', self.metric)} is of retrieval, not of heads: give "
                f"{option('protocol', 'retrieval')}, which measures recall@k, mAP and NDCG@k"
            )
        require_one_of("metric", self.metric, [None, *(name for metrics in METRICS.values() for name in metrics)])
        if not 0 <= self.margin <= HIGHEST_MARGIN:
            raise UsageError(
                f"{option('margin')} must be >= 0 and at most {HIGHEST_MARGIN:g}, got {self.margin}: "
                "0.01 is one percentage point of accuracy"
            )
        check_near_duplicates(self.near_duplicates)
        check_folds(self.folds, self.repeats)
