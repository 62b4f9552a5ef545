"""The memory that a verb may use: the option ``memory``, or a share of what the machine has left."""

from __future__ import annotations

import math
import re

import psutil

from embedpipe._utils.machine.limits import memory_limit
from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

#: Bytes of a unit: powers of ten, and powers of two with an i, as other tools have them.
UNITS = {"": 1} | {
    f"{prefix}{suffix}B": base**power
    for power, prefix in enumerate(("", "K", "M", "G", "T"))
    for suffix, base in (("", 1000), ("I", 1024))
    if prefix or not suffix
}
#: Share of the available memory that is used where no limit is given.
USABLE_SHARE = 0.8


def parse_size(name: str, value: str | None) -> int | None:
    """Return the bytes of an option such as ``"500MB"`` or ``"2GiB"``; None for None.

    Raises UsageError, naming the option, if it is no size.
    """
    if value is None:
        return None
    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?((?:[KMGT]I?)?B)?", str(value).strip().upper())
    size = float(parts[1]) * UNITS[parts[2] or ""] if parts else 0.0
    if not 1 <= size < math.inf:
        raise UsageError(f"{option(name)} must be a size such as 500MB, 2GB or 2GiB, got {value!r}")
    return int(size)


def used_memory() -> int:
    """Return the bytes that this process holds, without the pages of mapped files, which the system can take back."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def available_memory() -> int:
    """Return the bytes that this process may use beside what it holds, given other programs and its container."""
    available, limit = psutil.virtual_memory().available, memory_limit()
    return int(available if limit is None else min(available, limit - used_memory()))


def memory_left(limit: int | None) -> int:
    """Return the bytes left of a limit of this process; without a limit, a share of the available memory."""
    return int(USABLE_SHARE * available_memory()) if limit is None else limit - used_memory()
