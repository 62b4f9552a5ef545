"""Tensors of weights: their hash, seeded random initialisation, and loading them into a module."""

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

    The hash covers the names in sorted order, each with its dtype, shape and raw bytes. Entries that are not tensors
    are left out, and ``num_batches_tracked`` as well: it counts training steps, is not used in eval mode, and
    converters drop it.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        if not isinstance(tensor, Tensor) or name.rpartition(".")[2] == "num_batches_tracked":
            continue
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        raw: Any = flat.view(torch.uint8).numpy()  # raw bytes, for any dtype
        digest.update(raw)
    return digest.hexdigest()


@contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's random numbers inside the block; the state outside is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load ``state`` into ``module``, with equal names and shapes. Raises WeightsError with some of the differences."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise misfit(error, origin) from error


def misfit(error: Exception | None, origin: str) -> WeightsError:
    """Return a WeightsError with the first lines of torch's list of missing, unexpected and misshapen tensors."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = [line if len(line) < 200 else line[:200] + " ..." for line in lines[:4]]
    more = [f"and {len(lines) - 4} more lines like this"] if len(lines) > 4 else []
    return WeightsError(
        f"the weights of {origin} do not fit the architecture. Check the name of the backbone, or --arch:\n  "
        + "\n  ".join(shown + more)
    )
