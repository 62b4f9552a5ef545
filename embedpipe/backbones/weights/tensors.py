"""Weights: their identity, their random initialisation, and how they get into a module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe.errors import WeightsError


def hash_tensors(state: Mapping[str, object]) -> str:
    """Return the SHA-256, in hex, of tensors by name: the same for a ``.pth`` and its ``.safetensors``.

    Over the names in sorted order, each with its dtype, shape and raw bytes. Left out are entries that are
    not tensors and ``num_batches_tracked``: it counts training steps, has no part in eval mode, and
    converters drop it.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        if not isinstance(tensor, Tensor) or name.rpartition(".")[2] == "num_batches_tracked":
            continue
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        raw: Any = flat.view(torch.uint8).numpy()  # the bytes as they lie, whatever the dtype
        digest.update(raw)
    return digest.hexdigest()


@contextmanager
def seeded() -> Iterator[None]:
    """Make torch's random initialisation inside the block always the same, and leave no trace outside."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load all of ``state`` into all of ``module``. Raises WeightsError, naming some of what does not fit."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise misfit(error, origin) from error


def misfit(error: Exception | None, origin: str) -> WeightsError:
    """Return torch's list of missing, unexpected and ill-shaped tensors, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = [line if len(line) < 200 else line[:200] + " ..." for line in lines[:4]]
    more = [f"and {len(lines) - 4} more lines like this"] if len(lines) > 4 else []
    return WeightsError(
        f"the weights of {origin} do not fit the architecture; is it the right one (--arch, or the name)?\n  "
        + "\n  ".join(shown + more)
    )
