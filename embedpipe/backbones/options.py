"""Which backbone to load and what to take from it: the options that the command line and Python share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from embedpipe._utils.precision import Precision
from embedpipe.backbones.spec import Pooling
from embedpipe.decoding.recipe import Decode
from embedpipe.errors import UsageError, nearest
from embedpipe.sources.options import Modality

#: What is loaded where no backbone is named: its weights are on the machine already.
DEFAULT_BACKBONES: dict[Modality, str] = {
    "image": "timm/tf_efficientnet_lite0",
    "text": "sentence-transformers/all-MiniLM-L6-v2",
}


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """Which network, which weights, which of its layers.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.

    Raises
    ------
    UsageError
        If a value is not one of those there are, or two options contradict each other.
    """

    backbone: str = field(
        default="",
        metadata={
            "help": "The network, as PROVIDER/NAME: see `embedpipe backbones`. "
            f"By default {DEFAULT_BACKBONES['image']} for images and {DEFAULT_BACKBONES['text']} for texts."
        },
    )
    weights: str = field(
        default="default",
        metadata={
            "help": "'default' (published weights), 'none' (random, seeded), or your own: a .pth or .safetensors file; "
            "for texts the model's folder or the file of word vectors."
        },
    )
    arch: str | None = field(
        default=None,
        metadata={"help": "Architecture of a checkpoint/ that does not name its own, such as timm/resnet18."},
    )
    layer: tuple[str, ...] = field(
        default=(),
        metadata={"help": "A module's dotted name, or 'features' (the default): may be given several times."},
    )
    drop_last: int = field(
        default=0, metadata={"help": "Leave out the last N of the stages that `backbones NAME --layers` lists."}
    )
    pooling: Pooling | None = field(
        default=None,
        metadata={
            "help": "How maps and tokens become a vector: avg (or mean), cls, max, flatten or none, for word vectors "
            "also sif; chosen by shape if not given."
        },
    )
    modality: Modality | None = field(
        default=None, metadata={"help": "image or text, where the backbone embeds both, or none is named."}
    )
    chunk: bool = field(
        default=False,
        metadata={
            "help": "Read texts that are too long for the network in pieces, and average; else only their start."
        },
    )
    frequencies: str | None = field(
        default=None,
        metadata={"help": "File of words and their counts, for --pooling sif; else taken from the vectors' order."},
    )
    precision: Precision = field(
        default="fp32",
        metadata={"help": "Arithmetic in the network: fp32, fp16, bf16 or int8. Stored vectors are float32."},
    )
    decode: Decode = field(
        default="full",
        metadata={"help": "full, or scaled: JPEGs may be decoded smaller, to no less than twice the network's size."},
    )
    offline: bool = field(default=False, metadata={"help": "Use files at hand only; never download weights."})

    def __post_init__(self) -> None:
        if isinstance(self.layer, str):
            object.__setattr__(self, "layer", (self.layer,))
        for name, value, known in (
            ("modality", self.modality, (None, *get_args(Modality))),
            ("pooling", self.pooling, (None, *get_args(Pooling))),
            ("precision", self.precision, get_args(Precision)),
            ("decode", self.decode, get_args(Decode)),
        ):
            if value not in known:
                words = [word for word in known if word]
                raise UsageError(f"{name}={value!r} is not one of {', '.join(words)}{nearest(str(value), words)}")
        if self.drop_last < 0:
            raise UsageError(f"drop_last={self.drop_last} is negative: it is how many stages to leave out")
        if self.drop_last and self.layer:
            raise UsageError(
                f"drop_last={self.drop_last} and layer={list(self.layer)} both choose the layer: give one of them"
            )
        if len(set(self.layer)) < len(self.layer):
            raise UsageError(f"layer={list(self.layer)} names a layer twice")
        if self.frequencies is not None and self.pooling != "sif":
            raise UsageError(f"frequencies={self.frequencies!r} only matters with pooling='sif' (--pooling sif)")


@dataclass(frozen=True, slots=True)
class ReloadOptions:
    """What a stored spec cannot say about loading its backbone again.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    weights: str = field(
        default="default",
        metadata={"help": "The weights (a file, or a model's folder), for vectors that were made with your own."},
    )
    frequencies: str | None = field(
        default=None, metadata={"help": "The file of word counts, for vectors that were made with one."}
    )
    trust: bool = field(
        default=False, metadata={"help": "Run the code that a file names: a python: backbone, a head's own estimator."}
    )
    offline: bool = field(default=False, metadata={"help": "Use files at hand only; never download weights."})
