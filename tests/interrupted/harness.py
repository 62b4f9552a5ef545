"""Ends verbs at any call that changes files, or fills the disk there, and looks at what is stored."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interrupted.verbs import KILL
from isolated import TRAINING, Isolated

SHIM = Path(__file__).with_name("shim.c")


def build_shim(folder: Path) -> Path | None:
    """Compile the shim; None without a C compiler."""
    library = folder / "shim.so"
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"]
    return library if subprocess.run(command, check=False).returncode == 0 else None


@dataclass(frozen=True)
class Outcome:
    """A verb that was stopped at a call: what was wrong afterwards, empty for nothing, and the message of the verb."""

    verb: str
    call: int
    wrong: str
    message: str = ""


class Workshop:
    """Folders in which verbs are stopped.

    Parameters
    ----------
    folder : Path
        A new folder.
    shim : Path
        What `build_shim` made.
    """

    def __init__(self, folder: Path, shim: Path) -> None:
        self._folder = folder
        environment = {"EMBEDPIPE_CACHE": str(folder / "cache")}
        self._isolated = Isolated(TRAINING, {**environment, "LD_PRELOAD": str(shim)})
        self._calls: dict[str, int] = {}
        self._before: dict[str, dict[str, str]] = {}
        self._after: dict[str, dict[str, str]] = {}

    def close(self) -> None:
        """End the process."""
        self._isolated.__exit__(None, None, None)

    def calls(self, verb: str) -> int:
        """Return the number of calls of a verb that change files."""
        if verb not in self._calls:
            work = self._work(verb)
            work.mkdir(parents=True)
            self._call("prepare", verb, str(work))
            shutil.copytree(work, work.with_suffix(".pristine"))
            self._before[verb] = self._call("state", verb, str(work))
            self._restore(verb)
            self._calls[verb] = self._call("run", verb, str(work), True)
            self._after[verb] = self._call("state", verb, str(work))
        return self._calls[verb]

    def kill(self, verb: str, call: int) -> Outcome:
        """End the verb just before one of its calls, look at what is stored, and run it again."""
        self.calls(verb)
        self._restore(verb)
        work = str(self._work(verb))
        answer = self._isolated.call("interrupted.verbs:run", verb, work, True, call, KILL)
        if answer.died != "ended by SIGKILL" and answer.died:
            return Outcome(verb, call, f"{answer.died}: {answer.output[-1500:]}")
        return Outcome(verb, call, self._inspect(verb))

    def fill(self, verb: str, call: int) -> Outcome:
        """Let the disk be full from one of its calls on, look at what is stored, and run it again with room."""
        self.calls(verb)
        self._restore(verb)
        work = str(self._work(verb))
        answer = self._isolated.call("interrupted.verbs:run_full", verb, work, call)
        if answer.died:
            return Outcome(verb, call, f"{answer.died}: {answer.output[-1500:]}")
        message = answer.value
        if message and work not in message:
            return Outcome(verb, call, f"the message names no file: {message}", message)
        return Outcome(verb, call, self._inspect(verb), message)

    def grow(self, verb: str, disk: Path) -> tuple[list[str], int]:
        """Run a verb on a small file system that is doubled until there is room, and return messages and size in KB.

        The file system is mounted at ``disk``. What is stored at the end must be that of a disk with room.
        """
        self.calls(verb)
        size, messages = 160, []
        work = disk / "work"
        shutil.copytree(self._work(verb).with_suffix(".pristine"), work)
        while True:
            answer = self._isolated.call("interrupted.verbs:run_full", verb, str(work), 1 << 60)
            assert not answer.died, answer.output
            if not answer.value:
                break
            messages.append(answer.value)
            size *= 2
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        now, expected = self._call("state", verb, str(work)), self._after[verb]
        assert now.keys() == expected.keys()
        return messages, size

    def _inspect(self, verb: str) -> str:
        """Compare what is stored with before and after, run the verb again, and compare with after."""
        work, before, after = str(self._work(verb)), self._before[verb], self._after[verb]
        answer = self._isolated.call("interrupted.verbs:state", verb, work)
        if answer.died:
            return f"what is stored cannot be read: {answer.output[-1500:]}"
        now = answer.value
        lost = sorted(before.keys() & after.keys() - now.keys())
        other = sorted(name for name in now if now[name] not in (before.get(name), after.get(name)))
        if lost or other:
            return f"lost: {lost[:5]}, neither from before nor from after: {other[:5]}"
        again = self._isolated.call("interrupted.verbs:run", verb, work)
        if again.died:
            return f"the verb fails afterwards: {again.died}: {again.output[-1500:]}"
        answer = self._isolated.call("interrupted.verbs:state", verb, work)
        if answer.died:
            return f"what is stored cannot be read after running it again: {answer.output[-1500:]}"
        differing = sorted(name for name in {*after, *answer.value} if after.get(name) != answer.value.get(name))
        return f"running it again gives another result: {differing[:5]}" if differing else ""

    def _work(self, verb: str) -> Path:
        return self._folder / verb.replace(" ", "-")

    def _restore(self, verb: str) -> None:
        work = self._work(verb)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(work.with_suffix(".pristine"), work)

    def _call(self, function: str, *arguments: object) -> dict[str, str]:
        answer = self._isolated.call(f"interrupted.verbs:{function}", *arguments, seconds=240)
        assert not answer.died, f"{function}{arguments}: {answer.died}\n{answer.output}"
        return answer.value


def spread(calls: int, count: int) -> Iterator[int]:
    """Yield up to ``count`` of the calls 1 to ``calls``, at equal distances."""
    yield from sorted({1 + round(i * (calls - 1) / max(1, count - 1)) for i in range(count)})
