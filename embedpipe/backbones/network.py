"""What a provider gives, and what it is asked for: the whole of the plug-in interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import BackboneError

StateDict = dict[str, Tensor]

#: Runs a module on normalised pixels (n, 3, h, w) and returns what it feeds its classifier.
Features = Callable[[nn.Module, Tensor], Any]


@dataclass(frozen=True)
class StoredWeights:
    """Weights that were read from a file: tensors by name, and where they came from.

    ``folder`` is set where the file lies in a folder with timm's ``config.json``.
    """

    state: StateDict
    origin: str
    folder: Path | None = None


#: Which weights a provider is asked for: its published ones, random ones, or these.
Weights = Literal["default", "none"] | StoredWeights


@dataclass(frozen=True)
class Network:
    """A network as its provider built it, on the CPU.

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


@runtime_checkable
class Provider(Protocol):
    """A source of networks; a plug-in's entry point in ``embedpipe.backbones`` names an instance or a class of it."""

    def names(self) -> list[str]:
        """Return the names it has, or an empty list where they cannot be told."""

    def load(self, name: str, weights: Weights, offline: bool) -> Network:
        """Build a network.

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
    handle = module.get_submodule(classifier).register_forward_pre_hook(_leave)
    try:
        module(pixels)
    except _ReachedClassifier as reached:
        return reached.value
    finally:
        handle.remove()
    raise BackboneError(f"the classifier {classifier!r} of {type(module).__name__} is never called")


def input_of(classifier: str) -> Features:
    """Return a `Network.features` that gives the input of the module of that dotted name."""
    return partial(_run_until, classifier)
