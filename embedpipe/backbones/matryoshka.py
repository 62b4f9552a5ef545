"""Shorter vectors of models whose first values are trained to stand alone.

Method: Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from embedpipe._utils.option_names import option
from embedpipe.backbones.network import Features, ImageNetwork, TextNetwork
from embedpipe.errors import UsageError


def cut_features(network: ImageNetwork | TextNetwork, dimensions: int) -> ImageNetwork | TextNetwork:
    """Return a network whose features have their first ``dimensions`` values, of length 1 if they had that before.

    A note says so if nothing says that the network was trained for this.
    """
    normalised = isinstance(network, TextNetwork) and network.normalised
    cut = functools.partial(_cut, network.features, dimensions, normalised)
    changes: dict[str, Any] = {"features": cut}
    if isinstance(network, ImageNetwork) and network.pooler is network.features:
        changes["pooler"] = cut
    if not (isinstance(network, TextNetwork) and network.matryoshka):
        note = (
            f"nothing says that {network.name} was trained for shorter vectors (Matryoshka), so the first {dimensions} "
            "values may say little: `embedpipe reduce` learns what to keep"
        )
        changes["notes"] = (*network.notes, note)
    return dataclasses.replace(network, **changes)


def _cut(features: Features, dimensions: int, normalised: bool, module: nn.Module, batch: Any) -> Tensor:
    vectors: Tensor = features(module, batch)
    if vectors.ndim > 3:
        raise UsageError(
            f"{option('dimensions')} needs features that are vectors or tokens, and those of this network are maps of "
            f"shape {tuple(vectors.shape[1:])}: `embedpipe reduce` shortens them"
        )
    if vectors.shape[-1] < dimensions:
        raise UsageError(
            f"{option('dimensions')} must be <= {vectors.shape[-1]}, the length of the vectors, got {dimensions}"
        )
    vectors = vectors[..., :dimensions]
    return normalize(vectors, dim=-1) if normalised else vectors
