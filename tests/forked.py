"""Runs that can be killed, each a fork of one process that has imported everything: a kill costs no start-up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

# It forks before torch or Delta have started a thread: they do so in the child.
PARENT = """
import os, sys
import deltalake, joblib, pandas, psutil, torchvision
import embedpipe, embedpipe.backbones.load, embedpipe.embedding.run, embedpipe.embedding.writing.writer
for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.stdin.close()
        exec(eval(line))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Runs code in forked children, one at a time, in an environment of their own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        command, pipe = [sys.executable, "-c", PARENT], subprocess.PIPE
        self._parent = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._parent.communicate(timeout=60)

    def kill(self, code: str, log: Path, after: int) -> None:
        """Run code in a child, and kill it once it has added so many bytes to a file."""
        assert self._parent.stdin
        before, deadline = _size(log), time.monotonic() + 120
        self._parent.stdin.write(f"{code!r}\n")
        child = self._number()
        while _size(log) < before + after:
            assert time.monotonic() < deadline, "it does nothing"
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
        assert self._number() == -signal.SIGKILL, "it must be killed at work"

    def _number(self) -> int:
        assert self._parent.stdout
        return int(self._parent.stdout.readline())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
