"""Make the virtual environment of a peer: `environment.py NAME` installs NAME.txt into benchmarks/.peers/NAME.

PyTorch and what it needs of CUDA are several GB, so an environment sees those of the environment that runs this: links
in benchmarks/.peers/torch, which a .pth file puts at the end of its path. pip counts them as installed, and a peer that
pins another PyTorch gets its own, which goes before. Nothing else is shared.
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
    """Return where a peer's Python is, or will be."""
    return ENVIRONMENTS / name / "bin" / "python"


def link_torch() -> Path:
    """Return a folder of links to this environment's PyTorch."""
    folder = ENVIRONMENTS / "torch"
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in SHARED:
        for path in Path(sysconfig.get_path("purelib")).glob(pattern):
            link = folder / path.name
            if not link.is_symlink():
                link.symlink_to(path)
    return folder


def make(name: str) -> None:
    """Make the environment of a peer, and install what its file lists."""
    requirements = HERE / f"{name}.txt"
    if not requirements.is_file():
        known = ", ".join(sorted(path.stem for path in HERE.glob("*.txt")))
        raise SystemExit(f"there is no peer {name!r}: there are {known}")
    venv.create(ENVIRONMENTS / name, with_pip=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(ENVIRONMENTS / name)})
    (Path(packages) / "torch.pth").write_text(f"{link_torch()}\n", encoding="utf-8")
    command = [python_of(name), "-m", "pip", "install", "--disable-pip-version-check", "-q", "-r", requirements]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    make(sys.argv[1])
