"""``python:MODULE.FACTORY``: a network for images or texts that a function of the user returns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from embedpipe._utils.importing import import_user_module
from embedpipe._utils.option_names import option
from embedpipe.backbones.network import ImageNetwork, StoredWeights, TextNetwork, Weights
from embedpipe.backbones.weights.tensors import load_strictly, seeded
from embedpipe.decoding.recipe import Preprocessing
from embedpipe.errors import BackboneError, UnknownBackboneError, UsageError, nearest

_SHAPE = (
    "it must return a torch.nn.Module with an attribute 'preprocessing', or a pair (module, "
    "embedpipe.decoding.Preprocessing(...)), or for texts an embedpipe.backbones.TextNetwork"
)


class PythonProvider:
    """Networks built by the user's functions. The name is typed by the user, so its code is run."""

    def names(self) -> list[str]:
        """Return an empty list, as the user's functions cannot be listed."""
        return []

    def load(self, name: str, weights: Weights, offline: bool) -> ImageNetwork | TextNetwork:
        """Import ``module.factory`` or ``module:factory``, call it without arguments, and use the network it returns.

        The weights are those that the function sets, or a file's. Features are the module's output.

        Raises
        ------
        UnknownBackboneError
            If the module or the function does not exist.
        BackboneError
            If the function fails, or does not return a network.
        """
        if weights == "none":
            raise UsageError(
                f"{option('weights', 'none')} does not apply to python: backbones, which initialise themselves: "
                "leave it out"
            )
        module_name, _, factory_name = name.replace(":", ".").rpartition(".")
        if not module_name or not factory_name:
            raise UnknownBackboneError(f"backbone must be python:module.factory, got 'python:{name}'")
        name = f"{module_name}:{factory_name}"
        factory = _find(module_name, factory_name)
        try:
            with seeded():
                result = factory()
        except (Exception, SystemExit) as error:
            raise BackboneError(f"python:{name} failed: {type(error).__name__}: {error}") from error
        origin = weights.origin if isinstance(weights, StoredWeights) else f"python:{name}"
        network: ImageNetwork | TextNetwork
        if isinstance(result, TextNetwork):
            network = dataclasses.replace(result, name=name, origin=origin)
        else:
            module, preprocessing = _unpack(result, name)
            network = ImageNetwork(name, module, preprocessing, origin, pretrained=True)
        if isinstance(weights, StoredWeights):
            load_strictly(network.module, weights.state, weights.origin)
            network = dataclasses.replace(network, notes=weights.notes)
        return network


def _find(module_name: str, factory_name: str) -> Any:
    try:
        module = import_user_module(module_name)
    except ModuleNotFoundError as error:
        raise UnknownBackboneError(
            f"python:{module_name}.{factory_name}: no module {error.name!r} in {str(Path.cwd())!r} or among the "
            "installed packages"
        ) from error
    except (Exception, SystemExit) as error:
        raise BackboneError(
            f"python:{module_name}.{factory_name}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise UnknownBackboneError(
            f"python:{module_name}.{factory_name}: the module {module_name!r} has no function {factory_name!r}"
            f"{nearest(factory_name, vars(module))}"
        )
    return factory


def _unpack(result: Any, name: str) -> tuple[nn.Module, Preprocessing]:
    match result:
        case nn.Module(preprocessing=Preprocessing() as preprocessing):
            return result, preprocessing
        case (nn.Module() as module, Preprocessing() as preprocessing):
            return module, preprocessing
        case nn.Module():
            raise BackboneError(f"python:{name} returned a {type(result).__name__} without 'preprocessing': {_SHAPE}")
    raise BackboneError(f"python:{name} returned {result!r:.100}: {_SHAPE}")
