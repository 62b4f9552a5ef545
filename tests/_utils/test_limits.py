"""Limits of control groups, read from folders like the kernel's."""

from __future__ import annotations

from pathlib import Path

from embedpipe._utils.machine.limits import cpu_limit, memory_limit


def lay_out(root: Path, groups: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text)
    (root / "groups").write_text(groups)
    return root / "fs", root / "groups"


def test_version_2_takes_the_smallest_limit_of_all_parents(tmp_path: Path) -> None:
    files = {
        "pod/cpu.max": "150000 100000\n",
        "pod/box/cpu.max": "max 100000\n",
        "pod/memory.max": "max\n",
        "pod/box/memory.max": "1073741824\n",
    }
    place = lay_out(tmp_path, "0::/pod/box\n", files)
    assert (cpu_limit(*place), memory_limit(*place)) == (1.5, 1 << 30)


def test_version_1_reads_a_folder_for_each_controller(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/box/cpu.cfs_quota_us": "400000\n",
        "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        "memory/box/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.limit_in_bytes": "2147483648\n",
    }
    place = lay_out(tmp_path, "4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n", files)
    assert (cpu_limit(*place), memory_limit(*place)) == (4.0, 1 << 31)


def test_missing_limits_are_none(tmp_path: Path) -> None:
    place = lay_out(tmp_path, "1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"})
    assert (cpu_limit(*place), memory_limit(*place)) == (None, None)
    assert cpu_limit(tmp_path / "nowhere", tmp_path / "no file") is None
