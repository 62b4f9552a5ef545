"""A run's state on disk: whole or not there, and read without running code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from embedpipe._utils.atomic import whole_file
from embedpipe.errors import UsageError


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings, lists and dicts; a kill at any moment leaves the old state or the new one."""
    with whole_file(path) as part, part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises UsageError if it is damaged, or anything else."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"key", "run", "network", "settled", "optimizer", "scaler", "random"} - state.keys()
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise UsageError(f"{str(path)!r} is no state of a run, or a damaged one: delete it to start anew") from error
    if missing:
        raise UsageError(
            f"{str(path)!r} is a state of another version of embedpipe, or none of a run ({', '.join(sorted(missing))} "
            "missing): delete it to start anew"
        )
    return state
