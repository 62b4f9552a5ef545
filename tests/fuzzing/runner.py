"""Rounds of fuzzing: each target for some seconds in a process of its own, over and over."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from isolated import Isolated

#: Seconds of one round of a target, without making its seeds.
SLICE = 6.0


@dataclass(frozen=True)
class Round:
    """What happened to the inputs of a target; ``faults``: what was wrong -> file with the input."""

    target: str
    inputs: int = 0
    refused: int = 0
    longest: float = 0.0
    memory: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Self) -> Round:
        return Round(
            self.target,
            self.inputs + other.inputs,
            self.refused + other.refused,
            max(self.longest, other.longest),
            max(self.memory, other.memory),
            {**other.faults, **self.faults},
        )


def fuzz(
    isolated: Isolated, targets: Sequence[str], seconds: float, seed: str, to: Path, each: float = SLICE
) -> Iterator[Round]:
    """Yield rounds of the targets in turn for so many seconds.

    Parameters
    ----------
    to : Path
        Folder of the inputs that were wrong, made when there is one.
    each : float
        Seconds of a round.
    """
    end, number = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as temporary:
        while number < len(targets) or time.monotonic() < end:
            for target in targets:
                number += 1
                folder = Path(temporary) / target.replace(" ", "-")
                folder.mkdir(exist_ok=True)
                answer = isolated.call(
                    "fuzzing.worker:run",
                    target,
                    str(folder),
                    f"{seed} {number}",
                    each,
                    seconds=0,
                    environment={"TMPDIR": temporary},
                )
                if answer.died:
                    words = f"fault: {answer.died}: {_last(answer.output)}"
                    done = Round(target, 1, faults={words: str(folder / "current")})
                else:
                    done = Round(target, **answer.value)
                if done.faults:
                    to.mkdir(parents=True, exist_ok=True)
                kept = {}
                for words, file in done.faults.items():
                    kept[words] = str(to / f"{target.replace(' ', '-')}-{seed}-{number}-{len(kept)}")
                    shutil.copyfile(file, kept[words])
                yield Round(target, done.inputs, done.refused, done.longest, done.memory, kept)
                if number >= len(targets) and time.monotonic() >= end:
                    return


def _last(output: str) -> str:
    """Return the innermost lines of the stacks that a process printed before it ended."""
    return " | ".join(line.strip() for line in output.splitlines() if line.strip())[:600]
