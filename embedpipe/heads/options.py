"""Options of `embedpipe.fit` and of the command line's ``fit``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from embedpipe._utils.machine.memory import parse_size
from embedpipe._utils.option_names import option
from embedpipe._utils.options import split_names
from embedpipe.errors import UsageError, require_one_of
from embedpipe.heads.zero_shot.prompts import CLASSES_HELP, TEMPLATES_HELP, check_templates

Task = Literal["classification", "regression", "multilabel"]
ClassWeight = Literal["balanced"]
#: What a head was measured on: the rows of the split column, the folds of a cross-validation, or nothing.
MeasuredOn = Literal["test", "validation", "folds", "none"]
RejectBy = Literal["probability", "distance"]
LABEL_SEPARATOR = ";"

#: Help of the option ``memory``.
MEMORY_HELP = (
    "Memory that this process may use, such as 2GiB or 500MB; vectors that need more are read from disk block by "
    "block. By default a share of what is available."
)


#: Help of the option ``features``.
FEATURES_HELP = (
    "Columns of the store that a head learns from beside the vectors, such as price,age: numbers are scaled, text and "
    "booleans one-hot encoded."
)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Options of a fit: what to learn from, how, and how to measure it.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    label: str = field(default="label", metadata={"help": "The store's column with the labels or numbers to learn."})
    layer: str | None = field(
        default=None,
        metadata={"help": "The layer to learn from, where the store has several; a+b joins two end to end."},
    )
    features: tuple[str, ...] = field(default=(), metadata={"help": FEATURES_HELP})
    classes: tuple[str, ...] = field(default=(), metadata={"help": CLASSES_HELP})
    templates: tuple[str, ...] = field(default=(), metadata={"help": TEMPLATES_HELP})
    task: Task | None = field(
        default=None,
        metadata={
            "help": "classification, regression, or multilabel (any number of labels per item); by default regression "
            "for numbers with fractions, else classification."
        },
    )
    label_separator: str = field(
        default=LABEL_SEPARATOR, metadata={"help": "Separator between the labels of an item (multilabel)."}
    )
    folds: int = field(
        default=5,
        metadata={
            "help": "Folds of the cross-validation if the store has no splits; 0 fits without measuring. Classes with "
            "fewer rows are fitted and not measured, if they are at most a tenth of the rows."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the folds."})
    remove_components: int = field(
        default=0,
        metadata={
            "help": "Subtract the projection on the first N singular vectors of the training rows before the head: "
            "1 for sif pooling."
        },
    )
    class_weight: ClassWeight | None = field(
        default=None, metadata={"help": "balanced gives every class the same total weight in fitting."}
    )
    sample_weight: str | None = field(
        default=None, metadata={"help": "A column of numbers: the weight of each row in fitting."}
    )
    calibrate: bool = field(default=False, metadata={"help": "Calibrate the probabilities (temperature scaling)."})
    interval_coverage: float | None = field(
        default=None,
        metadata={
            "help": "Predict an interval with every number, which contains the true value with this probability, such "
            "as 0.9 (conformal prediction)."
        },
    )
    reject_share: float | None = field(
        default=None, metadata={"help": "Mark about this share of the rows as rejected, such as 0.1."}
    )
    reject_by: RejectBy = field(
        default="probability",
        metadata={"help": "Reject the least certain rows (probability), or those unlike the training rows (distance)."},
    )
    device: str | None = field(
        default=None,
        metadata={"help": "cuda, cuda:1...: fit logreg, ridge or lda on a GPU; on the CPU by default."},
    )
    memory: str | None = field(default=None, metadata={"help": MEMORY_HELP})

    @property
    def gpu(self) -> str | None:
        """The GPU to fit on; None for the CPU."""
        return None if self.device == "cpu" else self.device

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", split_names("features", self.features))
        check_templates(self.templates)
        parse_size("memory", self.memory)
        require_one_of("task", self.task, (None, *get_args(Task)))
        require_one_of("class_weight", self.class_weight, (None, *get_args(ClassWeight)))
        require_one_of("reject_by", self.reject_by, get_args(RejectBy))
        if self.folds < 0 or self.folds == 1:
            raise UsageError(f"{option('folds')} must be >= 2, or 0 to fit without measuring, got {self.folds}")
        if self.remove_components < 0:
            raise UsageError(f"{option('remove_components')} must be >= 0, got {self.remove_components}: 1 is usual")
        if not self.label_separator:
            raise UsageError(
                f"{option('label_separator')} must not be empty: give the text between two labels, such as ;"
            )
        if self.label_separator != LABEL_SEPARATOR and self.task != "multilabel":
            raise UsageError(
                f"{option('label_separator', self.label_separator)} takes several labels of an item apart: add "
                f"{option('task', 'multilabel')}"
            )
        if self.reject_share is None and self.reject_by != "probability":
            raise UsageError(
                f"{option('reject_by', self.reject_by)} needs a share of rows to reject: add "
                f"{option('reject_share', 0.1)}"
            )
        if self.features and self.reject_by == "distance":
            raise UsageError(
                f"{option('reject_by', 'distance')} compares vectors, and {option('features')} are no part of them: "
                "reject by probability"
            )
        shares = (("interval_coverage", self.interval_coverage, 0.9), ("reject_share", self.reject_share, 0.1))
        for name, share, usual in shares:
            if share is not None and not 0 < share < 1:
                raise UsageError(f"{option(name)} must be between 0 and 1, such as {usual}, got {share}")
