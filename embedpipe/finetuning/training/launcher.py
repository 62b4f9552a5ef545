"""What a launcher of several processes, `accelerate launch` or torchrun, says in the environment."""

from __future__ import annotations

import os

from embedpipe.errors import UsageError

#: What it tells each process, beside how many there are.
TOLD = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched_with() -> int:
    """Return how many processes a launcher began, this one among them. Raises UsageError if it does not say all."""
    told = os.environ.get("WORLD_SIZE", "1")
    if not told.isdecimal() or not int(told):
        raise UsageError(f"WORLD_SIZE={told!r} in the environment is no number of processes: unset it")
    missing = [name for name in TOLD if name not in os.environ]
    if told != "1" and missing:
        raise UsageError(
            f"WORLD_SIZE={told} in the environment says that processes were launched, without {', '.join(missing)}: "
            "use `accelerate launch` or torchrun, or unset it"
        )
    return int(told)


def first_of_launched() -> bool:
    """Return whether this process speaks for those that a launcher began."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def require_one_process(verb: str) -> None:
    """Raise UsageError if a launcher began several processes, which a verb has no use for."""
    if launched_with() > 1:
        raise UsageError(f"`{verb}` runs in one process, and {launched_with()} were launched: call it by itself")
