"""The environment variables of launchers of several processes, `accelerate launch` and torchrun."""

from __future__ import annotations

import os

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError

#: Variables that a launcher sets beside WORLD_SIZE.
VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched_processes() -> int:
    """Return the number of launched processes, 1 without a launcher. Raises UsageError if a variable is missing."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or not int(size):
        raise UsageError(f"WORLD_SIZE must be a number of processes, got {size!r} in the environment: unset it")
    missing = [name for name in VARIABLES if name not in os.environ]
    if size != "1" and missing:
        raise UsageError(
            f"WORLD_SIZE={size} in the environment needs {', '.join(missing)} too: use `accelerate launch` or "
            "torchrun, or unset WORLD_SIZE"
        )
    return int(size)


def is_first_process() -> bool:
    """Return whether this process is the only one or the first: it alone writes files and messages."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def require_one_process(verb: str, method: str | None = None) -> None:
    """Raise UsageError if a launcher has started several processes for a verb, or its method, that uses one."""
    if launched_processes() > 1:
        use = f"`{verb}`" if method is None else f"`{verb}` with {option('method', method)}"
        raise UsageError(f"{use} must run in one process, got {launched_processes()}: start it without a launcher")
