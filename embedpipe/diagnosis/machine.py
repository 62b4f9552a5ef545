"""Devices, processor, memory, disks and threads, as this process may use them.

torch is imported inside the probes, so that a broken torch fails these probes only.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

import psutil

from embedpipe._utils.config import cache_folder
from embedpipe._utils.machine.limits import cpu_limit, memory_limit
from embedpipe._utils.option_names import option
from embedpipe.diagnosis.findings import Finding

#: Instruction sets that make networks faster, as torch names them.
USEFUL = ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "sve", "sve2")

GB = 1e9
#: A job is likely to fail with fewer free bytes than these.
LITTLE_MEMORY = 2 * GB
LITTLE_DISK = 5 * GB

#: If other programs use more than this percentage of the processor, measurements are unreliable.
#: The use is measured for so many seconds.
BUSY = 30
LOOK_SECONDS = 0.3

CPUINFO = Path("/proc/cpuinfo")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")


def devices() -> Finding:
    """Find GPUs, the device that `embed` chooses, and the reason."""
    import torch

    from embedpipe._utils.device import choose_device

    device, reason = choose_device()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    parts = [reason, *(f"cuda:{i}: {gpu.name}, {gpu.total_memory / GB:.0f} GB" for i, gpu in enumerate(gpus))]
    if mps := torch.backends.mps.is_available():
        parts.append(f"Apple's GPU works with {option('device', 'mps')}")
    warnings = []
    if device.type == "cpu" and NVIDIA_DRIVER.exists():
        warnings.append(
            f"an NVIDIA driver is installed, but no GPU is used ({reason}): install a torch build with CUDA"
        )
    return Finding(
        "devices",
        "; ".join(parts),
        {
            "chosen": str(device),
            "reason": reason,
            "gpus": [{"name": gpu.name, "bytes": gpu.total_memory} for gpu in gpus],
            "mps": mps,
        },
        tuple(warnings),
    )


def processor() -> Finding:
    """Find the processor's name, the cores that this process may use, and the instruction sets that networks use."""
    import torch

    cores, limit = _affinity_cores(), cpu_limit()
    name = _processor_name()
    instructions = _instructions()
    detail = f"{name}, {cores} of {os.cpu_count()} cores usable"
    warnings = []
    if limit is not None:
        detail += f", limited to {limit:g} cores' worth of time"
        if limit < cores:
            most = max(1, int(limit))
            warnings.append(
                f"a container limits this process to {limit:g} of the {cores} cores that it sees, so threads wait for "
                f"each other: set OMP_NUM_THREADS={most}, and pass {option('threads', most)}"
            )
    busy = psutil.cpu_percent(LOOK_SECONDS)
    if busy > BUSY:
        warnings.append(
            f"other programs use {busy:.0f} % of the processor, so measurements show less than the machine can do"
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
        "instructions": instructions,
    }
    return Finding("cpu", f"{detail}; {', '.join(instructions) or capability}", values, tuple(warnings))


def _affinity_cores() -> int:
    """Return how many cores the CPU affinity of this process allows; containers' limits are reported separately."""
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
        known = {name for name, present in torch.cpu.get_capabilities().items() if present is True}
    else:
        flags = CPUINFO.read_text().split() if CPUINFO.is_file() else []
        known = {name for name in USEFUL if name in flags or name.replace("_f", "f") in flags}
    return [name for name in USEFUL if name in known]


def memory() -> Finding:
    """Find the total and the available memory."""
    machine, limit = psutil.virtual_memory(), memory_limit()
    total = machine.total if limit is None else min(machine.total, limit)
    available = min(machine.available, total)
    detail = f"{total / GB:.1f} GB, {available / GB:.1f} GB available"
    if total < machine.total:
        detail += f"; limited by a container, the machine has {machine.total / GB:.1f} GB"
    warnings = []
    if available < LITTLE_MEMORY:
        warnings.append(f"only {available / GB:.1f} GB of memory are available: close other programs")
    values = {"total": total, "available": available, "machine_total": machine.total, "limit": limit}
    return Finding("memory", detail, values, tuple(warnings))


def disks() -> Finding:
    """Find the free space of the disks with the working folder, cache, downloaded weights and temporary files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    places = {
        "working folder": Path.cwd(),
        "cache": cache_folder(),
        "downloaded weights": Path(HF_HUB_CACHE),
        "temporary files": Path(tempfile.gettempdir()),
    }
    free = {name: shutil.disk_usage(_existing(place)).free for name, place in places.items()}
    warnings = tuple(
        f"only {count / GB:.1f} GB are free for the {name} ({places[name]}): delete files, or use another disk"
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
    """Find the settings that decide how many threads compute."""
    import torch

    cores = _affinity_cores()
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    count = torch.get_num_threads()
    warnings = tuple(
        f"{name}={value} limits the network to {value} of {cores} cores: unset it to embed at full speed"
        for name, value in environment.items()
        if name == "OMP_NUM_THREADS" and value.isdecimal() and 2 * int(value) <= cores
    )
    settings = ", ".join(f"{name}={value}" for name, value in environment.items()) or "no variable is set"
    values = {"torch": count, "torch_interop": torch.get_num_interop_threads(), "environment": environment}
    return Finding("threads", f"torch computes on {count}; {settings}", values, warnings)
