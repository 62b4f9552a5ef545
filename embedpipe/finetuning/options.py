"""Options of `embedpipe.finetune`: the training, and the split of the rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from embedpipe._utils.folder_kinds import check_name, refuse_url
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError, require_one_of
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE, NearDuplicates, check_near_duplicates
from embedpipe.sources.options import Modality

#: All weights from a head on the frozen features on; or texts of a class brought together, and a head on their vectors.
Method = Literal["lp-ft", "contrastive"]
Optimizer = Literal["adamw", "sgd"]
Augment = Literal["auto", "none", "light", "strong"]
BatchNorm = Literal["frozen", "trained"]
TrainingPrecision = Literal["fp32", "bf16", "fp16"]

#: Default learning rates, small because the weights are pretrained.
LEARNING_RATES: dict[str, float] = {"adamw": 3e-4, "sgd": 3e-3}
#: Factor of the learning rate for texts, whose encoders are trained at 5e-5 or less (Devlin et al., NAACL 2019).
TEXT_RATE_FACTOR = 1 / 3
#: Factor of the learning rate for LoRA, whose weights start at 0.
LORA_RATE_FACTOR = 3
#: Number of training images from which ``auto`` is strong augmentation.
MANY_IMAGES = 5_000


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """How a network is trained.

    Raises
    ------
    UsageError
        If a value is out of range or unknown.
    """

    epochs: int = field(default=10, metadata={"help": "Maximum number of epochs."})
    batch_size: int = field(default=32, metadata={"help": "Images or texts per optimizer step."})
    accumulate: int = field(default=1, metadata={"help": "Parts that a batch is split into, to save memory."})
    optimizer: Optimizer = field(default="adamw", metadata={"help": "adamw, or sgd with Nesterov momentum 0.9."})
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Peak learning rate; by default "
            f"{LEARNING_RATES['adamw']:g} for adamw and {LEARNING_RATES['sgd']:g} for sgd, and a third of it for texts."
        },
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, except of biases and normalisations."})
    layer_decay: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of a block as a share of the next block's; by default 0.75 for transformers, else 1."
        },
    )
    warmup: float = field(default=0.1, metadata={"help": "Share of the steps with linear warmup of the learning rate."})
    patience: int = field(
        default=5,
        metadata={
            "help": "Stop after this many epochs in a row that are more than a standard error below the best accuracy."
        },
    )
    freeze_until: str | None = field(
        default=None, metadata={"help": "Freeze the stages before this one; `backbones NAME --layers` lists them."}
    )
    lora: int | None = field(
        default=None,
        metadata={
            "help": "Rank of LoRA: train low-rank additions to the linear layers of a transformer only; needs peft."
        },
    )
    augment: Augment = field(
        default="auto",
        metadata={
            "help": "Of images: none, light (crops and flips), strong (smaller crops, colours, erasing), or auto: "
            "depends on their number."
        },
    )
    batch_norm: BatchNorm = field(
        default="frozen",
        metadata={"help": "frozen: batch-norms keep the statistics of pretraining; trained: they follow the batches."},
    )
    train_precision: TrainingPrecision | None = field(
        default=None, metadata={"help": "fp32, bf16 or fp16; by default bf16 on a GPU that supports it, else fp32."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the order of the rows, augmentation and dropout."})

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("augment", self.augment, get_args(Augment)),
            ("batch_norm", self.batch_norm, get_args(BatchNorm)),
            ("train_precision", self.train_precision, (None, *get_args(TrainingPrecision))),
        ):
            require_one_of(name, value, known)
        for name, minimum in (("epochs", 0), ("batch_size", 1), ("accumulate", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not minimum <= value < 1 << 31:
                raise UsageError(f"{option(name)} must be an integer >= {minimum}, got {value!r}")
        if self.lora is not None and (not isinstance(self.lora, int) or not 1 <= self.lora <= 4096):
            raise UsageError(f"{option('lora')} must be a rank from 1 to 4096, got {self.lora!r}: 8 is usual")
        if self.lora is not None and self.freeze_until is not None:
            raise UsageError(
                f"{option('freeze_until')} cannot be combined with {option('lora', self.lora)}, which freezes the "
                "network: leave one out"
            )
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"{option('accumulate')} must be at most {option('batch_size', self.batch_size)}, got {self.accumulate}"
            )
        if self.batch_size == 1 and self.batch_norm == "trained":
            raise UsageError(
                f"{option('batch_size')} must be >= 2 with {option('batch_norm', 'trained')}, got 1: one image has "
                "no batch statistics"
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise UsageError(
                f"{option('learning_rate')} must be above 0 and below 10, got {self.learning_rate}: "
                f"{LEARNING_RATES['adamw']:g} is usual"
            )
        if not 0 <= self.weight_decay < 1:
            raise UsageError(
                f"{option('weight_decay')} must be >= 0 and below 1, got {self.weight_decay}: 0.01 is usual"
            )
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UsageError(
                f"{option('layer_decay')} must be above 0 and at most 1, got {self.layer_decay}: 1 turns it off"
            )
        if not 0 <= self.warmup <= 1:
            raise UsageError(
                f"{option('warmup')} must be a share of the steps from 0 to 1, got {self.warmup}: 0.1 is usual"
            )

    def peak_rate(self, modality: Modality) -> float:
        """Return the peak of the learning rate."""
        default = LEARNING_RATES[self.optimizer] * (1 if self.lora is None else LORA_RATE_FACTOR)
        default *= TEXT_RATE_FACTOR if modality == "text" else 1
        return default if self.learning_rate is None else self.learning_rate

    def augmentation(self, images: int, modality: Modality) -> Literal["none", "light", "strong"]:
        """Return the augmentation for a number of training images. Raises UsageError if texts are to be augmented."""
        if modality == "text":
            if self.augment not in ("auto", "none"):
                raise UsageError(f"{option('augment', self.augment)} applies to images, got texts: leave it out")
            return "none"
        if self.augment != "auto":
            return self.augment
        return "strong" if images >= MANY_IMAGES else "light"


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How the rows are split into training, validation and test rows if the store has no ``split`` column.

    Raises
    ------
    UsageError
        If ``near_duplicates`` is out of range, or there is no file of ``splits``.
    """

    group: str | None = field(
        default=None,
        metadata={"help": "Column whose equal values stay on the same side of the split, such as a patient."},
    )
    near_duplicates: NearDuplicates = field(
        default=NEAR_DUPLICATE_COSINE,
        metadata={
            "help": "Centred cosine from which rows are near-duplicates and stay on the same side of the split, or off."
        },
    )
    splits: str | None = field(
        default=None,
        metadata={"help": "A .parquet file of splits, as `evaluate` writes it; its first split is used."},
    )

    def __post_init__(self) -> None:
        check_near_duplicates(self.near_duplicates)
        if self.splits is None:
            return
        refuse_url(self.splits, f"{option('splits')} must be a local file")
        path = check_name(self.splits)
        if path.suffix == ".parquet" and not path.exists():  # `evaluate` makes it; here a slip would train on test rows
            raise UsageError(
                f"{option('splits')} must be a file of splits, and {self.splits!r} does not exist: `embedpipe "
                f"evaluate` with {option('splits')} writes one"
            )


@dataclass(frozen=True, kw_only=True)
class LedgerOptions:
    """Whether the result is remembered for later forecasts of `embedpipe.advise`."""

    no_ledger: bool = field(
        default=False,
        metadata={
            "help": "Neither read nor write the ledger of fine-tunings in the cache folder, which sharpens forecasts."
        },
    )
