"""The age of this process, so that the time that a command reports agrees with the clock on the wall."""

from __future__ import annotations

import os
import time
from pathlib import Path

_IMPORTED = time.perf_counter()

#: The position of the start of a process in ``/proc/self/stat``, after the name in brackets; see proc_pid_stat(5).
_START = 19


def process_age() -> float:
    """Return the seconds since this process began; where the system does not say it, since this module was imported."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        ticks = int(fields[_START]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks
    except (OSError, AttributeError, ValueError, IndexError):
        return time.perf_counter() - _IMPORTED
