"""Which device runs, and the reason in words, so that a GPU is never left unused silently."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from embedpipe._utils.config import usable_cores
from embedpipe._utils.option_names import option
from embedpipe._utils.options import Precision
from embedpipe.errors import UsageError

_HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}

#: Its attributes are created at run time, so type checkers do not know them.
_CUDNN: Any = torch.backends.cudnn


def choose_device(requested: str | None = None) -> tuple[torch.device, str]:
    """Choose the device to run on.

    Parameters
    ----------
    requested : str, optional
        ``cpu``, ``cuda``, ``cuda:1``, ``mps`` and so on; by default the GPU if it works, else the CPU.

    Returns
    -------
    device : torch.device
    reason : str
        Why this device was chosen, to be shown to the user.

    Raises
    ------
    UsageError
        If the requested device does not exist or does not work.
    """
    if requested is not None:
        device = _parse(requested)
        if problem := _problem(device):
            raise UsageError(f"device {requested!r} cannot be used: {problem}. Leave it out, or use 'cpu'")
        return device, f"{device}: as requested{_name(device)}"
    device = torch.device("cuda")
    problem = _problem(device)
    if problem is None:
        return device, f"{device}: it works{_name(device)}"
    return torch.device("cpu"), f"cpu: {problem}"


def _parse(requested: str) -> torch.device:
    try:
        return torch.device(requested)
    except (RuntimeError, TypeError, ValueError) as error:
        if requested == "all":
            raise UsageError(f"{option('device', 'all')} is for `embedpipe embed`: name one device") from error
        raise UsageError(
            f"{option('device')} must be 'cpu', 'cuda', 'cuda:1' or another name that torch knows, got {requested!r}"
        ) from error


def _problem(device: torch.device) -> str | None:
    """Return why a device does not work, or None if a small computation on it does."""
    if device.type == "cuda":
        if torch.version.cuda is None and torch.version.hip is None:
            return f"this torch build ({torch.__version__}) has no GPU support"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            available = torch.cuda.is_available()
        if not available:
            kind = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
            driver = "NVIDIA" if torch.version.cuda else "AMD"
            detail = f" ({str(caught[0].message).strip().splitlines()[0]})" if caught else ""
            return f"this torch build has {kind}, but no {driver} driver answered{detail}"
        if device.index is not None and device.index >= torch.cuda.device_count():
            return f"the machine has {torch.cuda.device_count()} GPUs, counted from 0"
    try:
        total = torch.ones(2, 2, device=device).matmul(torch.ones(2, 2, device=device)).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return f"a small computation on it failed ({str(error).strip().split('. ')[0]})"
    return None if total == 8.0 else f"a small computation on it gave {total} instead of 8"


def _name(device: torch.device) -> str:
    return f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""


def cores() -> int:
    """Return on how many cores a network runs: torch's number of threads, but at most the usable cores."""
    return min(torch.get_num_threads(), usable_cores())


@contextlib.contextmanager
def arithmetic(precision: Precision, device: torch.device) -> Iterator[None]:
    """Run the block in a precision, whatever the process's own settings of torch are."""
    half = _HALVES.get(precision)
    exact = device.type == "cuda" and half is None
    # By default cuDNN's convolutions use TF32, which has 10 bits of mantissa where fp32 has 23.
    switches: list[Any] = [torch.backends.cuda.matmul, _CUDNN.conv] if exact else []
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "ieee"
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
