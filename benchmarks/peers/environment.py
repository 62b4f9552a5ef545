"""Make the virtual environment of a peer: `environment.py NAME` installs NAME.txt into benchmarks/.peers/NAME.

PyTorch and its CUDA libraries take several GB, so an environment shares those of the present environment: links in
benchmarks/.peers/torch, which a .pth file appends to its path. pip counts them as installed. A peer that pins another
PyTorch gets its own, which comes first on the path. Nothing else is shared.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".peers"
SHARED = ("torch", "torch-*", "torchgen", "torchvision*", "functorch", "triton*", "nvidia*", "cuda*")


def python_of(name: str) -> Path:
    """Return the path of a peer's Python, which may not exist yet."""
    return ENVIRONMENTS / name / "bin" / "python"


def link_torch() -> Path:
    """Return a folder of links to the PyTorch of the present environment."""
    folder = ENVIRONMENTS / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in SHARED:
        for path in Path(sysconfig.get_path("purelib")).glob(pattern):
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(path)
    return folder


def make(name: str) -> None:
    """Make the environment of a peer, and install the requirements of its file."""
    requirements = HERE / f"{name}.txt"
    if not requirements.is_file():
        known = ", ".join(sorted(path.stem for path in HERE.glob("*.txt")))
        raise SystemExit(f"unknown peer {name!r}. Available: {known}")
    venv.create(ENVIRONMENTS / name, with_pip=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(ENVIRONMENTS / name)})
    (Path(packages) / "torch.pth").write_text(f"{link_torch()}\n", encoding="utf-8")
    command = [
        str(python_of(name)),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "-q",
        "-r",
        str(requirements),
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    make(sys.argv[1])
