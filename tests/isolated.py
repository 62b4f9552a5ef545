"""Calls in processes of their own, which may crash, hang or be killed: each a fork of one that has imported everything.

``Isolated().call("damage.specimens:observe", "store", folder)`` returns what the function returns, or how it died.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

# It forks before torch or Delta have started a thread: they do so in the child. An alarm without a handler ends a
# process in compiled code too; Python's stacks are printed just before.
PARENT = """
import faulthandler, importlib, json, os, resource, signal, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if not child:
        sys.stdin.close()
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(request["environment"])
        if request["seconds"]:
            faulthandler.dump_traceback_later(max(0.1, request["seconds"] - 0.5), file=2)
            signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        if request["memory"]:
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + request["memory"],) * 2)
        code = 1
        try:
            module, _, name = request["function"].partition(":")
            answer = getattr(importlib.import_module(module), name)(*request["arguments"])
            with open(request["answer"], "w") as file:
                json.dump(answer, file)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


#: What reads stores and sources; what learns as well.
READING = ("deltalake", "embedpipe.backbones.load", "embedpipe.sources", "embedpipe.store")
LEARNING = (
    *READING,
    "joblib",
    "pandas",
    "skops.io",
    "safetensors.torch",
    "embedpipe.heads.fit",
    "embedpipe.evaluation",
)
TRAINING = (*LEARNING, "embedpipe.finetuning.finetune", "embedpipe.finetuning.benchmark.benchmark", "embedpipe.cli.app")


@dataclass(frozen=True)
class Answer:
    """What a call returned, as JSON holds it; or how its process ended, and what it printed."""

    value: Any
    died: str
    output: str


class Isolated:
    """Runs functions in forks of a process that has imported embedpipe.

    Parameters
    ----------
    imports : sequence of str
        The modules that calls find imported.
    environment : mapping of str to str, optional
        Variables for all calls.
    """

    def __init__(self, imports: Sequence[str] = READING, environment: Mapping[str, str] | None = None) -> None:
        tests = str(Path(__file__).parent)
        path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
        variables = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="isolated-")
        pipe = subprocess.PIPE
        command = [sys.executable, "-W", "ignore", "-c", PARENT, *imports]
        self._parent = subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: TracebackType | None) -> None:
        self._parent.communicate(timeout=60)
        self._folder.cleanup()

    def call(
        self,
        function: str,
        *arguments: Any,
        seconds: float = 300.0,
        memory: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> Answer:
        """Call ``module:function`` with arguments that JSON can hold.

        Parameters
        ----------
        seconds : float
            The process is ended after so long; 0 sets no limit.
        memory : int
            Bytes of address space that it may add; 0 sets no limit.
        environment : mapping of str to str, optional
        """
        assert self._parent.stdin
        assert self._parent.stdout
        answer, output = (Path(self._folder.name) / name for name in ("answer", "output"))
        answer.unlink(missing_ok=True)
        request = {
            "function": function,
            "arguments": arguments,
            "seconds": seconds,
            "memory": memory,
            "environment": dict(environment or {}),
            "answer": str(answer),
            "output": str(output),
        }
        self._parent.stdin.write(json.dumps(request) + "\n")
        code = int(self._parent.stdout.readline())
        printed = output.read_text(errors="replace")
        if code == 0:
            return Answer(json.loads(answer.read_text()), "", printed)
        died = f"exit code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            died = "took too long" if name in ("SIGALRM", "SIGPROF") else f"ended by {name}"
        return Answer(None, died, printed)
