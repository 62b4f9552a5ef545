"""The options of a backbone, which the command line and Python share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast, get_args

from embedpipe._utils.option_names import option
from embedpipe._utils.options import Precision
from embedpipe.backbones.spec import FEATURES, Pooling
from embedpipe.decoding.recipe import Decode, parse_channels, parse_range
from embedpipe.errors import UsageError, require_one_of
from embedpipe.sources.options import Modality

#: The backbones that are loaded by default; installed packages carry their weights.
DEFAULT_BACKBONES: dict[Modality, str] = {
    "image": "timm/tf_efficientnet_lite0",
    "text": "sentence-transformers/all-MiniLM-L6-v2",
}

#: What leaves the pooling of a layer to `embedpipe.backbones.layers.pooling.default_pooling`.
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class BackboneOptions:
    """The network, its weights and the layers to capture.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.

    Raises
    ------
    UsageError
        If a value is unknown, or two options contradict each other.
    """

    backbone: str = field(
        default="",
        metadata={
            "help": "The network, as PROVIDER/NAME; `embedpipe backbones` lists them. "
            f"By default {DEFAULT_BACKBONES['image']} for images and {DEFAULT_BACKBONES['text']} for texts."
        },
    )
    weights: str = field(
        default="default",
        metadata={
            "help": "'default' (published weights), 'none' (random, seeded), or a path: a .pth or .safetensors file, "
            "a model's folder, or a file of word vectors."
        },
    )
    arch: str | None = field(
        default=None,
        metadata={"help": "Architecture of a checkpoint/PATH that does not name it, such as timm/resnet18."},
    )
    layer: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Layer to capture: a module's dotted name, or 'features' (the default). May be given several times."
        },
    )
    drop_last: int = field(
        default=0,
        metadata={"help": "Leave out the last N stages; `embedpipe backbones NAME --layers` lists the stages."},
    )
    pooling: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "help": "How tokens and feature maps become one vector: cls, mean (or avg), cls+mean, max, flatten, pooler "
            "(the network's own), none (the vectors that the library itself gives), sif for word vectors, or default, "
            "that of the network's publication. May be given once for each --layer."
        },
    )
    image_size: int | None = field(
        default=None,
        metadata={
            "help": "Side of the square images that the network sees, in pixels, instead of the one with which it was "
            "published; position embeddings are resampled."
        },
    )
    dimensions: int | None = field(
        default=None,
        metadata={
            "help": "Keep the first N values of the features, of models that were trained for that (Matryoshka). "
            "`embedpipe reduce` shortens the vectors of any store."
        },
    )
    modality: Modality | None = field(
        default=None, metadata={"help": "image or text, for a backbone that embeds both, or if no backbone is named."}
    )
    chunk: bool = field(
        default=False,
        metadata={
            "help": "Split texts that are too long for the network into pieces and average the vectors. By default "
            "only their beginning is read."
        },
    )
    frequencies: str | None = field(
        default=None,
        metadata={
            "help": "File of words and their counts, for pooling sif. By default taken from the order of the vectors."
        },
    )
    precision: Precision = field(
        default="fp32",
        metadata={"help": "Arithmetic of the network: fp32, fp16, bf16 or int8. Stored vectors are float32."},
    )
    decode: Decode | None = field(
        default=None,
        metadata={
            "help": "full, or scaled: JPEGs may be decoded at a smaller size, at least twice the network's input. By "
            "default full, or what a fine-tuned checkpoint says."
        },
    )
    range: str | None = field(
        default=None,
        metadata={
            "help": "LOW:HIGH: the values that become black and white in images of more than 8 bits, such as 0:4095. "
            "auto (the default): the smallest depth of 8, 10, 12, 14, 16, 24 or 32 bits that holds an image's "
            "values; 0:1 for floats."
        },
    )
    channels: str | None = field(
        default=None,
        metadata={
            "help": "Channels of the images to take, counted from 1: one for gray, or three such as 4,3,2 for red, "
            "green and blue. auto (the default): those that the file declares as colours."
        },
    )
    offline: bool = field(default=False, metadata={"help": "Use local files only; never download weights."})

    def __post_init__(self) -> None:
        layers = (self.layer,) if isinstance(self.layer, str) else tuple(self.layer)
        object.__setattr__(self, "layer", layers)
        poolings = (self.pooling,) if isinstance(self.pooling, str) else tuple(self.pooling or ())
        object.__setattr__(self, "pooling", poolings or None)
        for name, value, known in (
            ("modality", self.modality, (None, *get_args(Modality))),
            *(("pooling", pooling, (DEFAULT, *get_args(Pooling))) for pooling in poolings),
            ("precision", self.precision, get_args(Precision)),
            ("decode", self.decode, (None, *get_args(Decode))),
        ):
            require_one_of(name, value, known)
        parse_range(self.range or "auto")
        parse_channels(self.channels or "auto")
        if self.dimensions is not None and self.dimensions < 1:
            raise UsageError(f"{option('dimensions')} must be >= 1, got {self.dimensions}")
        if self.dimensions is not None and (self.drop_last or (self.layer and FEATURES not in self.layer)):
            raise UsageError(f"{option('dimensions', self.dimensions)} shortens the layer 'features': capture it too")
        if self.image_size is not None and self.image_size < 1:
            raise UsageError(f"{option('image_size')} must be >= 1 pixel, got {self.image_size}")
        if self.drop_last < 0:
            raise UsageError(f"{option('drop_last')} must be >= 0, got {self.drop_last}")
        if self.drop_last and self.layer:
            raise UsageError(
                f"{option('drop_last', self.drop_last)} and {option('layer', list(self.layer))} must not both be set"
            )
        if len(set(self.layer)) < len(self.layer):
            raise UsageError(f"{option('layer')} must name each layer once, got {list(self.layer)}")
        if len(poolings) not in (0, 1, len(layers)):
            raise UsageError(
                f"{option('pooling')} must be given once, or once for each of the {len(layers) or 1} layers, got "
                f"{list(poolings)}"
            )
        if self.frequencies is not None and "sif" not in poolings:
            raise UsageError(
                f"{option('frequencies')} needs {option('pooling', 'sif')}, got "
                f"{option('frequencies', self.frequencies)}"
            )

    def poolings(self) -> dict[str, Pooling]:
        """Return the poolings of the layers, by name, that are not left to their defaults."""
        layers, poolings = self.layer or (FEATURES,), self.pooling or ()
        every = poolings * len(layers) if len(poolings) == 1 else poolings
        chosen = cast("tuple[Pooling, ...]", every)  # `__post_init__` has checked the words
        return {layer: pooling for layer, pooling in zip(layers, chosen, strict=False) if pooling != DEFAULT}


@dataclass(frozen=True, slots=True)
class ReloadOptions:
    """What is needed beside a stored spec to load its backbone again.

    Every field's ``metadata["help"]`` is the help text of the command-line option of the same name.
    """

    weights: str = field(
        default="default",
        metadata={
            "help": "The weights, a file or a model's folder, if the vectors were made with weights of your own."
        },
    )
    frequencies: str | None = field(
        default=None, metadata={"help": "The file of word counts, if the vectors were made with one."}
    )
    trust: bool = field(
        default=False,
        metadata={"help": "Run Python code that the store or head names: a python: backbone, or a custom estimator."},
    )
    offline: bool = field(default=False, metadata={"help": "Use local files only; never download weights."})
