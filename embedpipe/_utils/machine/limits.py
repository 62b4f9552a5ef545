"""The cores and memory that a container allows this process: Linux control groups, versions 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROCESS_GROUPS = Path("/proc/self/cgroup")

#: The kernel reports a missing limit as a number above this many bytes.
NO_LIMIT = 1 << 60


def cpu_limit(cgroups: Path = CGROUPS, groups: Path = PROCESS_GROUPS) -> float | None:
    """Return how many cores' worth of processor time the process may use, or None if there is no limit."""
    limits = []
    for folder in _folders(cgroups, groups, "cpu"):
        quota, period = _numbers(folder / "cpu.max")
        if quota is None:
            quota, period = _numbers(folder / "cpu.cfs_quota_us")[0], _numbers(folder / "cpu.cfs_period_us")[0]
        if quota and period and quota > 0:
            limits.append(quota / period)
    return min(limits, default=None)


def memory_limit(cgroups: Path = CGROUPS, groups: Path = PROCESS_GROUPS) -> int | None:
    """Return how many bytes of memory the process may use, or None if there is no limit."""
    limits = []
    for folder in _folders(cgroups, groups, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _numbers(folder / name)[0]
            if limit is not None and limit < NO_LIMIT:
                limits.append(limit)
    return min(limits, default=None)


def _folders(cgroups: Path, groups: Path, controller: str) -> Iterator[Path]:
    """Yield the folders whose files limit a controller: the process's group and all of its parents."""
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroups / controllers if controllers else cgroups
        folder = top / group.lstrip("/")
        yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(top)))
        if controllers:  # version 1 mounts each controller under its name as well
            yield cgroups / controller


def _numbers(file: Path) -> tuple[int | None, int | None]:
    """Return the first two numbers of a file; None for a missing one and for ``max``."""
    words = file.read_text().split() if file.is_file() else []
    first, second = ([int(word) if word.lstrip("-").isdecimal() else None for word in words] + [None, None])[:2]
    return first, second
