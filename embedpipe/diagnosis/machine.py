"""Devices, processor, memory, disks and threads, as this process may use them.

torch is imported where it is asked, so that a broken one is a finding of that part only.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

import platformdirs
import psutil

from embedpipe.diagnosis.findings import Finding
from embedpipe.diagnosis.limits import cpu_limit, memory_limit

#: Instruction sets that make networks faster, as torch names them.
USEFUL = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "sve", "sve2")

GB = 1e9
#: Free bytes below which a job is likely to fail.
LITTLE_MEMORY = 2 * GB
LITTLE_DISK = 5 * GB

#: Share of the processor, in per cent, that others may take before measurements are off; looked at for so long.
BUSY = 30
LOOK_SECONDS = 0.3

CPUINFO = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")


def devices() -> Finding:
    """Look for GPUs, and say which device `embed` takes and why."""
    import torch

    from embedpipe._utils.device import choose_device

    device, reason = choose_device()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    said = [reason, *(f"cuda:{i}: {gpu.name}, {gpu.total_memory / GB:.0f} GB" for i, gpu in enumerate(gpus))]
    if mps := torch.backends.mps.is_available():
        said.append("Apple's GPU works with --device mps")
    warnings = []
    if device.type == "cpu" and NVIDIA_DRIVER.exists():
        warnings.append(
            f"there is an NVIDIA driver, but no GPU is used ({reason}): install a torch build that has CUDA"
        )
    return Finding(
        "devices",
        "; ".join(said),
        {
            "chosen": str(device),
            "reason": reason,
            "gpus": [{"name": gpu.name, "bytes": gpu.total_memory} for gpu in gpus],
            "mps": mps,
        },
        tuple(warnings),
    )


def processor() -> Finding:
    """Look at the processor: its name, the cores that this process may use, and the instructions that matter."""
    import torch

    cores, limit = usable_cores(), cpu_limit()
    name = _processor_name()
    found = _instructions()
    detail = f"{name}, {cores} of {os.cpu_count()} cores usable"
    warnings = []
    if limit is not None:
        detail += f", limited to {limit:g} cores' worth of time"
        if limit < cores:
            most = max(1, int(limit))
            warnings.append(
                f"a container limits this process to {limit:g} of the {cores} cores that it sees, so that threads wait "
                f"for each other: set OMP_NUM_THREADS={most}, and give --threads {most}"
            )
    busy = psutil.cpu_percent(LOOK_SECONDS)
    if busy > BUSY:
        warnings.append(
            f"other programs keep {busy:.0f} % of the processor busy: what is measured now is what they leave"
        )
    capability = torch.backends.cpu.get_cpu_capability()
    values = {
        "name": name,
        "cores": os.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "usable_cores": cores,
        "limit": limit,
        "busy_percent": busy,
        "torch_capability": capability,
        "instructions": found,
    }
    return Finding("cpu", f"{detail}; {', '.join(found) or capability}", values, tuple(warnings))


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor_name() -> str:
    if CPUINFO.is_file():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _instructions() -> list[str]:
    import torch

    if hasattr(torch.cpu, "get_capabilities"):
        known = {name for name, there in torch.cpu.get_capabilities().items() if there is True}
    else:
        flags = CPUINFO.read_text().split() if CPUINFO.is_file() else []
        known = {name for name in USEFUL if name in flags or name.replace("_f", "f") in flags}
    return [name for name in USEFUL if name in known]


def memory() -> Finding:
    """Look at the memory, all and available."""
    found, limit = psutil.virtual_memory(), memory_limit()
    total = found.total if limit is None else min(found.total, limit)
    available = min(found.available, total)
    detail = f"{total / GB:.1f} GB, {available / GB:.1f} GB available"
    if total < found.total:
        detail += f"; a container limits it, the machine has {found.total / GB:.1f} GB"
    warnings = []
    if available < LITTLE_MEMORY:
        warnings.append(f"only {available / GB:.1f} GB of memory are available: end other programs")
    values = {"total": total, "available": available, "machine_total": found.total, "limit": limit}
    return Finding("memory", detail, values, tuple(warnings))


def disks() -> Finding:
    """Look at the free space where caches, downloaded weights, temporary files and the working folder are."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "working folder": Path.cwd(),
        "cache": Path(os.environ.get("EMBEDPIPE_CACHE") or platformdirs.user_cache_dir("embedpipe")),
        "downloaded weights": Path(HF_HUB_CACHE),
        "temporary files": Path(tempfile.gettempdir()),
    }
    free = {name: shutil.disk_usage(_existing(place)).free for name, place in places.items()}
    warnings = tuple(
        f"only {count / GB:.1f} GB are free for the {name} ({places[name]}): make room, or use another disk"
        for name, count in free.items()
        if count < LITTLE_DISK
    )
    detail = ", ".join(f"{name} {count / GB:.0f} GB free" for name, count in free.items())
    values = {name: {"path": str(places[name]), "free": count} for name, count in free.items()}
    return Finding("disk", detail, values, warnings)


def _existing(place: Path) -> Path:
    place = place.expanduser().absolute()
    return next(folder for folder in (place, *place.parents) if folder.exists())


def threads() -> Finding:
    """Look at the settings that say how many threads compute."""
    import torch

    cores = usable_cores()
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    given = {name: os.environ[name] for name in names if name in os.environ}
    count = torch.get_num_threads()
    warnings = tuple(
        f"{name}={value} holds the network to {value} of {cores} cores: unset it to embed at full speed"
        for name, value in given.items()
        if name == "OMP_NUM_THREADS" and value.isdecimal() and 2 * int(value) <= cores
    )
    said = ", ".join(f"{name}={value}" for name, value in given.items()) or "nothing set in the environment"
    values = {"torch": count, "torch_interop": torch.get_num_interop_threads(), "environment": given}
    return Finding("threads", f"torch computes on {count}; {said}", values, warnings)
