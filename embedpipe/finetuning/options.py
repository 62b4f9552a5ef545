"""Options of `embedpipe.finetune`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from embedpipe.errors import UsageError, nearest

Optimizer = Literal["adamw", "sgd"]
Augment = Literal["auto", "none", "light", "strong"]
BatchNorm = Literal["frozen", "trained"]
TrainingPrecision = Literal["fp32", "bf16", "fp16"]

#: Learning rate of an optimizer where the user names none; of weights that are good already, so a small one.
LEARNING_RATES: dict[str, float] = {"adamw": 3e-4, "sgd": 3e-3}
#: By how much that of low-rank additions is higher: they begin at nothing.
LORA_RATE = 3
#: From so many training images on, ``auto`` augments strongly.
MANY_IMAGES = 5_000


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """How a network is trained.

    Raises
    ------
    UsageError
        If a value is not one that there is.
    """

    epochs: int = field(default=10, metadata={"help": "How often every training image is seen, at most."})
    batch_size: int = field(default=32, metadata={"help": "Images a step takes, together with --accumulate."})
    accumulate: int = field(
        default=1, metadata={"help": "Parts in which a batch goes through the network, to save memory."}
    )
    optimizer: Optimizer = field(default="adamw", metadata={"help": "adamw, or sgd with Nesterov's momentum of 0.9."})
    learning_rate: float | None = field(
        default=None,
        metadata={
            "help": f"Its peak: by default {LEARNING_RATES['adamw']:g} (adamw), {LEARNING_RATES['sgd']:g} (sgd)."
        },
    )
    weight_decay: float = field(default=0.01, metadata={"help": "Of weights; not of biases and normalisations."})
    layer_decay: float | None = field(
        default=None,
        metadata={"help": "Learning rate of a block, as a share of the next one's: by default 0.75 for transformers."},
    )
    warmup: float = field(default=0.1, metadata={"help": "Share of the steps in which the learning rate rises."})
    patience: int = field(
        default=5, metadata={"help": "Stop after so many epochs in a row that were not better on the validation rows."}
    )
    freeze_until: str | None = field(
        default=None, metadata={"help": "A stage, as `backbones NAME --layers` lists it: those before it stay frozen."}
    )
    lora: int | None = field(
        default=None,
        metadata={
            "help": "Train low-rank additions of this rank to linear layers, as in transformers: LoRA; needs peft."
        },
    )
    augment: Augment = field(
        default="auto", metadata={"help": "none; light: crops and flips; strong: smaller crops, colours, erasing."}
    )
    batch_norm: BatchNorm = field(
        default="frozen",
        metadata={"help": "frozen: the statistics of the pretraining stay; trained: they follow the batches."},
    )
    train_precision: TrainingPrecision | None = field(
        default=None, metadata={"help": "fp32, bf16 or fp16; by default bf16 on a GPU that has it, else fp32."}
    )
    seed: int = field(default=0, metadata={"help": "Of the order of the images, their augmentation and dropout."})

    def __post_init__(self) -> None:
        for name, value, known in (
            ("optimizer", self.optimizer, get_args(Optimizer)),
            ("augment", self.augment, get_args(Augment)),
            ("batch_norm", self.batch_norm, get_args(BatchNorm)),
            ("train_precision", self.train_precision, (None, *get_args(TrainingPrecision))),
        ):
            if value not in known:
                words = [word for word in known if word]
                raise UsageError(f"{name}={value!r} is not one of {', '.join(words)}{nearest(str(value), words)}")
        for name, least in (("epochs", 0), ("batch_size", 1), ("accumulate", 1), ("patience", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value < 1 << 31:
                raise UsageError(f"{name}={value!r} is no whole number of {least} or more")
        if self.lora is not None and (not isinstance(self.lora, int) or not 1 <= self.lora <= 4096):
            raise UsageError(f"lora={self.lora!r} is no rank of 1 or more: 8 is usual")
        if self.lora is not None and self.freeze_until is not None:
            raise UsageError(f"lora={self.lora} freezes the network already: leave out freeze_until")
        if self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate={self.accumulate} cuts a batch of {self.batch_size} images: give no more parts"
            )
        if self.batch_size == 1 and self.batch_norm == "trained":
            raise UsageError(
                "batch_norm='trained' needs statistics of a batch, and batch_size=1 has none: give 2 or more"
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise UsageError(f"learning_rate={self.learning_rate} is none: {LEARNING_RATES['adamw']:g} is usual")
        if not 0 <= self.weight_decay < 1:
            raise UsageError(f"weight_decay={self.weight_decay} is not between 0 and 1: 0.01 is usual")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay={self.layer_decay} is not above 0 and up to 1: 0.75 is usual, 1 for none")
        if not 0 <= self.warmup <= 1:
            raise UsageError(f"warmup={self.warmup} is no share of the steps: 0.1 is usual")

    @property
    def peak_rate(self) -> float:
        """The highest learning rate."""
        usual = LEARNING_RATES[self.optimizer] * (1 if self.lora is None else LORA_RATE)
        return usual if self.learning_rate is None else self.learning_rate

    def augmentation(self, images: int) -> Literal["none", "light", "strong"]:
        """Return the augmentation for so many training images."""
        if self.augment != "auto":
            return self.augment
        return "strong" if images >= MANY_IMAGES else "light"
