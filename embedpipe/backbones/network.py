"""What a provider gives, and what it is asked for: the whole of the plug-in interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from embedpipe.backbones.spec import TextPreprocessing
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import BackboneError

StateDict = dict[str, Tensor]

#: Where there is nothing to count.
NOTHING: Mapping[str, int] = MappingProxyType({})

#: Runs a module on a batch, normalised pixels (n, 3, h, w) or a tokenizer's tensors, and returns its features: what
#: it feeds its classifier.
Features = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True)
class StoredWeights:
    """Weights that were read from a file: tensors by name, and where they came from.

    ``folder`` is set where the file lies in a folder with timm's ``config.json``.
    """

    state: StateDict
    origin: str
    folder: Path | None = None


#: Which weights a provider is asked for: its published ones, random ones, or these. A provider with
#: ``reads_files = True`` is given the path of a user's file or folder, the others its tensors.
Weights = Literal["default", "none"] | StoredWeights | Path


class Tokens(NamedTuple):
    """One text as a network takes it.

    Parameters
    ----------
    pieces : tuple
        What `Tokenizer.collate` puts into batches: one piece, or several of a text that is read in chunks.
    sizes : tuple of int
        How much each piece is to compute, in tokens where those are known: pieces of one size share a batch
        without padding.
    counts : mapping of str to int
        What the user should hear of, summed over a run; see `embedpipe.embedding.summary`.
    """

    pieces: tuple[Any, ...]
    sizes: tuple[int, ...]
    counts: Mapping[str, int] = NOTHING


class Tokenizer(Protocol):
    """Turns texts into what a network's module takes. Safe to use from several threads."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the tokens of a text: all of it in pieces if ``whole``, or as much of it as one piece holds."""

    def collate(self, pieces: Sequence[Any]) -> dict[str, Tensor]:
        """Return the batch of pieces of several texts, on the CPU.

        ``attention_mask`` (n, length) marks the tokens that count, where there is padding to tell them from.
        """


@dataclass(frozen=True)
class TextNetwork:
    """A network of texts as its provider built it, on the CPU.

    Parameters
    ----------
    name, origin, pretrained
        As in `ImageNetwork`.
    module : torch.nn.Module
        Its state is hashed; ``features`` calls it.
    preprocessing : TextPreprocessing
        What is declared of the tokens; ``chunk`` is the user's to say.
    tokenizer : Tokenizer
    features : callable
        ``features(module, batch)`` returns vectors (n, dim), or tokens (n, length, dim) to be pooled.
    class_token : bool
        Whether the first token of a text stands for all of it.
    normalised : bool
        Whether its vectors have length 1: then those averaged over chunks get it, too.
    token_weights : callable, optional
        ``token_weights(module, batch)`` returns the weight of each token (n, length), for the pooling ``sif``.
    with_frequencies : callable, optional
        ``with_frequencies(path)`` returns this network with token weights from a file of words and their counts.
    chunks : bool
        Whether its tokenizer can give all of a long text in pieces.
    batch_size : int, optional
        Items that a forward pass takes where nobody says.
    one_thread : bool
        Whether its pass waits for memory and not for arithmetic, so that more threads would only spin.
    libraries : tuple of str
        The packages whose versions go into the provenance.
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
    token_weights: Callable[[nn.Module, dict[str, Tensor]], Tensor] | None = None
    with_frequencies: Callable[[Path], TextNetwork] | None = None
    chunks: bool = True
    batch_size: int | None = None
    one_thread: bool = False
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageNetwork:
    """A network of images as its provider built it, on the CPU.

    Parameters
    ----------
    name : str
        What the spec calls it, without the provider: the same for two spellings of the same thing.
    module : torch.nn.Module
        Takes float32 (n, 3, h, w).
    preprocessing : Preprocessing
        The published recipe for its pixels.
    origin : str
        Where the weights came from, in words: a file, a package, a hub repository, a seed.
    pretrained : bool
        False for random weights.
    features : callable
        ``features(module, pixels)`` returns what the network feeds its classifier; the module's own
        output if there is no classifier. See `input_of`.
    prefix_tokens : int
        How many tokens come before the patches in its token sequences.
    class_token : bool
        Whether the first of them is a class token.
    channels_last : bool
        Whether its maps are (n, h, w, c), where their shape leaves that open.
    text : TextNetwork, optional
        The tower of texts whose vectors lie in the same space; it shares the module.
    libraries : tuple of str
        The packages whose versions go into the provenance.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    origin: str
    pretrained: bool
    features: Features = nn.Module.__call__
    prefix_tokens: int = 0
    class_token: bool = False
    channels_last: bool = False
    text: TextNetwork | None = None
    libraries: tuple[str, ...] = ("torchvision", "timm", "pillow")


@runtime_checkable
class Provider(Protocol):
    """A source of networks; a plug-in's entry point in ``embedpipe.backbones`` names an instance or a class of it.

    An attribute ``modalities``, such as ``("text",)``, says what its networks embed; images where there is none.
    """

    def names(self) -> list[str]:
        """Return the names it has, or an empty list where they cannot be told."""

    def load(self, name: str, weights: Weights, offline: bool) -> ImageNetwork | TextNetwork:
        """Build a network; one with two towers is returned as that of images.

        Raises
        ------
        UnknownBackboneError
            If there is no network of that name.
        WeightsError
            If the weights do not fit, or cannot be had.
        """


class _ReachedClassifier(BaseException):
    """Carries the classifier's input out of the forward pass; no error, so no ``except Exception`` stops it."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _leave(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _ReachedClassifier(inputs[0])


def _run_until(classifier: str, module: nn.Module, pixels: Tensor) -> Any:
    if torch.compiler.is_exporting():  # an exporter loses its place when a module is left so
        return _run_through(classifier, module, pixels)
    handle = module.get_submodule(classifier).register_forward_pre_hook(_leave)
    try:
        module(pixels)
    except _ReachedClassifier as reached:
        return reached.value
    finally:
        handle.remove()
    raise BackboneError(f"the classifier {classifier!r} of {type(module).__name__} is never called")


def _run_through(classifier: str, module: nn.Module, pixels: Tensor) -> Any:
    taken: list[Any] = []
    handle = module.get_submodule(classifier).register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        module(pixels)
    finally:
        handle.remove()
    return taken[-1]


def input_of(classifier: str) -> Features:
    """Return a `ImageNetwork.features` that gives the input of the module of that dotted name."""
    return partial(_run_until, classifier)
