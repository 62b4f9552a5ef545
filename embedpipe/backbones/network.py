"""The plug-in interface: a provider builds an `ImageNetwork` or `TextNetwork` from a name and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from embedpipe.backbones.spec import Pooling, TextPreprocessing
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import BackboneError

StateDict = dict[str, Tensor]

#: The counts of an item without events.
NO_COUNTS: Mapping[str, int] = MappingProxyType({})

#: Runs a module on a batch, normalised pixels (n, 3, h, w) or a tokenizer's tensors, and returns its features: the
#: input of its classifier.
Features = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class StoredWeights:
    """Weights that were read from a file: tensors by name, and their origin in words.

    ``folder`` is set if the file is in a folder with timm's ``config.json``. ``notes`` say what was changed or chosen
    in reading them. ``files`` are the files that were read. ``settings`` is the configuration of the network, as
    `ImageNetwork.settings`, if the file of weights holds it.
    """

    state: StateDict
    origin: str
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


#: The weights that a provider is to load: its published ones, random ones, or the user's. A provider with
#: ``reads_files = True`` gets the path of the user's file or folder, other providers get its tensors.
Weights = Literal["default", "none"] | StoredWeights | Path


class Tokens(NamedTuple):
    """The tokens of one text.

    Parameters
    ----------
    pieces : tuple
        The parts that `Tokenizer.collate` puts into batches: one, or several for a long text.
    sizes : tuple of int
        The length of each piece, in tokens if those are known: pieces of the same size need no padding in a batch.
    counts : mapping of str to int
        Events to report to the user, summed over a run; see `embedpipe.embedding.summary`.
    """

    pieces: tuple[Any, ...]
    sizes: tuple[int, ...]
    counts: Mapping[str, int] = NO_COUNTS


class Tokenizer(Protocol):
    """Turns texts into tensors for a network's module. Thread-safe."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text: the whole text in pieces if ``whole``, else its beginning in one piece."""

    def collate(self, pieces: Sequence[Any]) -> dict[str, Tensor]:
        """Return the batch of pieces of several texts, on the CPU.

        ``attention_mask`` (n, length), if present, is 1 for tokens and 0 for padding.
        """


@dataclass(frozen=True)
class Gaps:
    """The tensors of a module that its weights lack. They hold NaN, so that no vector uses them unnoticed.

    Parameters
    ----------
    names : frozenset of str
        Left out of the hash of the weights.
    description : str
        How the weights differ from the network, for messages.
    """

    names: frozenset[str] = frozenset()
    description: str = ""


@dataclass(frozen=True)
class TextNetwork:
    """A network for texts, as its provider built it on the CPU.

    Parameters
    ----------
    name, origin, pretrained
        As in `ImageNetwork`.
    module : torch.nn.Module
        Its weights are hashed; ``features`` calls it.
    preprocessing : TextPreprocessing
        The declaration of the tokens for the spec; ``chunk`` is set by the user's options.
    tokenizer : Tokenizer
    features : callable
        ``features(module, batch)`` returns vectors (n, dim), or tokens (n, length, dim) to be pooled.
    class_token : bool
        Whether the first token is a class token.
    normalised : bool
        Whether its vectors have length 1; means over pieces are then scaled to length 1 as well.
    matryoshka : bool
        Whether its files say that the first values of a vector are trained to stand alone.
    token_weights : callable, optional
        ``token_weights(module, batch)`` returns the weight of each token (n, length), for the pooling ``sif``.
    with_frequencies : callable, optional
        ``with_frequencies(path)`` returns this network with token weights from a file of words and their counts.
    chunks : bool
        Whether its tokenizer can split a long text into pieces.
    batch_size : int, optional
        The default number of items in a forward pass.
    one_thread : bool
        Whether it only looks up vectors, which more threads do not speed up.
    libraries : tuple of str
        The packages whose versions go into the provenance.
    gaps : Gaps
        Tensors that the weights lack, such as the pooler of a masked language model.
    notes : tuple of str
        What was chosen or adapted in loading the weights, for the user.
    files : tuple of Path, optional
        The files and folders that decide it beside the libraries: while they are the same, a run without new items
        does not load it. None if they are unknown.
    """

    name: str
    module: nn.Module
    preprocessing: TextPreprocessing
    tokenizer: Tokenizer
    origin: str
    pretrained: bool
    features: Features = nn.Module.__call__
    class_token: bool = False
    normalised: bool = False
    matryoshka: bool = False
    token_weights: Callable[[nn.Module, dict[str, Tensor]], Tensor] | None = None
    with_frequencies: Callable[[Path], TextNetwork] | None = None
    chunks: bool = True
    batch_size: int | None = None
    one_thread: bool = False
    libraries: tuple[str, ...] = ()
    gaps: Gaps = Gaps()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class ImageNetwork:
    """A network for images, as its provider built it on the CPU.

    Parameters
    ----------
    name : str
        Its canonical name for the spec, without the provider.
    module : torch.nn.Module
        Takes float32 (n, 3, h, w).
    preprocessing : Preprocessing
        The published recipe for its pixels.
    origin : str
        Where the weights came from, in words: a file, a package, a hub repository or a seed.
    pretrained : bool
        False for random weights.
    features : callable
        ``features(module, pixels)`` returns the input of the network's classifier, or the module's output if it has
        no classifier. See `input_of`.
    prefix_tokens : int
        The number of tokens before the patches in its token sequences.
    class_token : bool
        Whether the first of them is a class token.
    patches : int, optional
        The number of patch tokens, for layers that have fewer tokens before them; None if there is no such layer.
    tokens : callable, optional
        ``tokens(module, pixels)`` returns the tokens (n, length, dim) that the features are pooled from, for other
        poolings; None if the features are tokens or maps themselves.
    after_pooling : callable, optional
        ``after_pooling(module, vectors)`` is what the network does with pooled tokens, such as a norm.
    channels_last : bool
        Whether its feature maps are (n, h, w, c) if their shape does not tell.
    pooler : callable, optional
        ``pooler(module, pixels)`` returns the vectors (n, dim) of the network's own pooling of the features: the
        pooling ``pooler``.
    default_pooling : str, optional
        The pooling of the features with which the network was published, if their shape does not tell.
    config_sha256 : str
        As in `BackboneSpec`.
    settings : mapping
        The content of that file, for saving the network with other weights.
    image_size : int, optional
        The side of its images that the user asked for, if it is not the one of its publication.
    originals : mapping of str to Tensor
        Tensors of the weights in place of those that were resampled, for the hash: that of one file is one hash,
        whatever the size of the images.
    text : TextNetwork, optional
        The text encoder whose vectors lie in the same space; it shares the module.
    libraries : tuple of str
        The packages whose versions go into the provenance.
    gaps : Gaps
        Tensors that the weights lack.
    notes : tuple of str
        What was chosen or adapted in loading the weights, for the user.
    files : tuple of Path, optional
        As in `TextNetwork`.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    origin: str
    pretrained: bool
    features: Features = nn.Module.__call__
    prefix_tokens: int = 0
    class_token: bool = False
    patches: int | None = None
    tokens: Features | None = None
    after_pooling: Callable[[nn.Module, Tensor], Tensor] | None = None
    channels_last: bool = False
    pooler: Features | None = None
    default_pooling: Pooling | None = None
    config_sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    originals: Mapping[str, Tensor] = field(default_factory=dict)
    text: TextNetwork | None = None
    libraries: tuple[str, ...] = ("torchvision", "timm", "pillow")
    gaps: Gaps = Gaps()
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] | None = None


@runtime_checkable
class Provider(Protocol):
    """A source of networks; a plug-in's entry point in ``embedpipe.backbones`` names an instance or a class of it.

    An optional attribute ``modalities``, such as ``("text",)``, lists what its networks embed; the default is images.
    With an attribute ``takes_image_size = True``, its ``load`` takes a keyword ``image_size``, the side of the images
    in pixels, and sets `ImageNetwork.image_size` if that is not the network's own.
    """

    def names(self) -> list[str]:
        """Return the names of its networks, or an empty list if they cannot be listed."""

    def load(self, name: str, weights: Weights, offline: bool) -> ImageNetwork | TextNetwork:
        """Build a network; one with encoders for images and texts is returned as an `ImageNetwork`.

        Raises
        ------
        UnknownBackboneError
            If no network has that name.
        WeightsError
            If the weights do not fit or cannot be downloaded.
        """


class _Reached(BaseException):
    """Carries a value out of the forward pass; not an Exception, so that no handler stops it."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _leave_before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _Reached(inputs[0])


def _leave_after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    raise _Reached(output)


def _run_until(name: str, after: bool, module: nn.Module, pixels: Tensor) -> Any:
    part = module.get_submodule(name)
    values: list[Any] = []
    if torch.compiler.is_exporting():  # exporters cannot trace an exception
        handle = part.register_forward_hook(lambda _, args, output: values.append(output if after else args[0]))
    else:
        handle = part.register_forward_hook(_leave_after) if after else part.register_forward_pre_hook(_leave_before)
    try:
        module(pixels)
    except _Reached as reached:
        return reached.value
    finally:
        handle.remove()
    if values:
        return values[-1]
    raise BackboneError(f"the forward pass of {type(module).__name__} never calls the module {name!r}")


def input_of(module: str) -> Features:
    """Return a function for `ImageNetwork.features` that returns the input of the module with that dotted name."""
    return partial(_run_until, module, False)


def output_of(module: str) -> Features:
    """Return a function for `ImageNetwork.tokens` that returns the output of the module with that dotted name."""
    return partial(_run_until, module, True)
