"""Tensors of weights: their hash, seeded random initialisation, and loading them into a module."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from embedpipe._utils.option_names import option
from embedpipe.errors import WeightsError

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


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


def require_values(module: nn.Module, gaps: frozenset[str], origin: str) -> None:
    """Raise WeightsError for tensors without values, and for weights that are NaN or infinite, except for the gaps."""
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    bad: list[str] = []
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor) or name in gaps:
            continue
        if tensor.is_meta:
            raise WeightsError(
                f"the weights of {origin} must be loaded, but {name!r} is on the meta device, which holds no values: "
                "load the network on the CPU"
            )
        low, high = _extremes(tensor)
        # A buffer may be a mask of infinities.
        if low != low or high != high or (name in parameters and not (math.isfinite(low) and math.isfinite(high))):
            bad.append(name)
    if bad:
        raise WeightsError(
            f"the weights of {origin} must be finite numbers, but {len(bad)} tensors hold NaN or infinite values, such "
            f"as {bad[0]!r}: the training diverged or the file is damaged. Use other weights"
        )


def zero_notes(module: nn.Module, origin: str) -> list[str]:
    """Return a note if some layers have weights of zeros only, as in a file that was not downloaded to its end.

    Raises WeightsError if all have.
    """
    layers = {name: part.weight for name, part in module.named_modules() if isinstance(part, _LAYERS)}
    zero = [name for name, weight in layers.items() if isinstance(weight, Tensor) and not weight.any()]
    if zero and len(zero) == len(layers):
        raise WeightsError(f"the weights of {origin} are all zero: the file is not complete. Get it again")
    return [f"{len(zero)} of {len(layers)} layers have weights of zeros only, such as {zero[0]}"] if zero else []


def find_resampled(
    module: nn.Module, state: Mapping[str, Tensor], classifiers: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the tensors of the weights that a library resampled to fit its network, such as position embeddings.

    ``classifiers`` are the names of layers that may have another number of classes.
    """
    return {
        name: given
        for name, own in module.state_dict().items()
        if (given := state.get(name)) is not None
        and given.numel() != own.numel()
        and name.rpartition(".")[0] not in classifiers
    }


def resize_notes(module: nn.Module, originals: Mapping[str, Tensor], asked: bool = False) -> tuple[str, ...]:
    """Return notes on the tensors that `find_resampled` returned; ``asked`` is whether the user chose the size."""
    advice = "an architecture with the input size of the weights needs none of that"
    why = f"for {option('image_size')}" if asked else advice
    return tuple(
        f"{name} of the weights has shape {tuple(given.shape)} and was interpolated to "
        f"{tuple(module.state_dict()[name].shape)}, as the library does: {why}"
        for name, given in originals.items()
    )


def require_floats(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Raise WeightsError for integers in place of weights, as quantised models have: their scales would be lost."""
    for name, own in module.state_dict().items():
        given = state.get(name)
        if isinstance(own, Tensor) and own.is_floating_point() and given is not None and not given.is_floating_point():
            raise WeightsError(
                f"the weights of {origin} must be floating-point numbers, but {name!r} holds {given.dtype}: save the "
                "model before it is quantised"
            )


def _extremes(tensor: Tensor) -> tuple[float, float]:
    """Return the least and the largest value, which are NaN if any value is."""
    if not tensor.is_floating_point() or tensor.is_quantized or tensor.layout != torch.strided or not tensor.numel():
        return 0.0, 0.0
    wide = tensor if tensor.itemsize > 1 else tensor.to(torch.float32)  # 8-bit floats have no such operator
    low, high = torch.aminmax(wide)
    return float(low), float(high)


@contextmanager
def seeded() -> Iterator[None]:
    """Seed torch's random numbers inside the block; the state outside is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load ``state`` into ``module``, with equal names and shapes. Raises WeightsError with some of the differences."""
    require_floats(module, state, origin)
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise misfit(error, origin) from error


def misfit(error: Exception | None, origin: str, image_size: int | None = None) -> WeightsError:
    """Return a WeightsError with the first lines of torch's list of missing, unexpected and misshapen tensors.

    ``image_size`` is the size that the user asked for, which may be the reason.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = [line if len(line) < 200 else line[:200] + " ..." for line in lines[:4]]
    more = [f"and {len(lines) - 4} more lines like this"] if len(lines) > 4 else []
    what, advice = "the architecture", f"Check the name of the backbone, or {option('arch')}"
    if image_size is not None:
        what, advice = f"the architecture at {option('image_size', image_size)}", f"Leave {option('image_size')} out"
    return WeightsError(f"the weights of {origin} do not fit {what}. {advice}:\n  " + "\n  ".join(shown + more))
