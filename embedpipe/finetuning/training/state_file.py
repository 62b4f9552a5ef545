"""The file from which an interrupted training run continues, with a checksum of its content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.checksums import CHECKSUM, checksum_of_pieces
from embedpipe.errors import UsageError, WriteError

KEYS = {"settings", "run", "network", "candidate_weights", "optimizer", "scaler", "random"}


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings, lists and dicts; a kill at any moment leaves the old file or the new one."""
    try:
        with whole_file(path) as part:
            torch.save({**state, CHECKSUM: _checksum(state)}, part)
    except RuntimeError as error:  # torch's words for a full disk
        raise WriteError(f"cannot write {str(path)!r}: {error}. Make room, and run this again") from error


def load_state(path: Path, keys: Set[str] = KEYS) -> dict[str, Any]:
    """Read the state of a run without running code. Raises UsageError if the file is damaged or has other keys."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = keys - state.keys()
        # torch does not look at the checksums of its format.
        whole = bool(missing) or state.pop(CHECKSUM, None) == _checksum(state)
    except Exception as error:  # on invalid bytes torch raises many types
        raise UsageError(
            f"{str(path)!r} must be the state of a run, and is damaged: delete it to start again"
        ) from error
    if not whole:
        raise UsageError(
            f"{str(path)!r} is damaged, as its content does not have its checksum: delete it to start again"
        )
    if missing:
        raise UsageError(
            f"{str(path)!r} must hold the state of a run of this version of embedpipe, and lacks "
            f"{', '.join(sorted(missing))}: delete it to start again"
        )
    return state


def _checksum(state: Mapping[str, Any]) -> str:
    return checksum_of_pieces(_pieces(state))


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    """Yield the bytes of what a state is made of, with types, shapes and lengths."""
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, Mapping):
        yield f"dict {len(value)}".encode()
        for key, each in value.items():
            yield repr(key).encode()
            yield from _pieces(each)
    elif isinstance(value, list | tuple):
        yield f"{type(value).__name__} {len(value)}".encode()
        for each in value:
            yield from _pieces(each)
    else:
        yield repr(value).encode()
