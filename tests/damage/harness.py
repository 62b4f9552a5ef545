"""Damages files at random, and says whether what reads them notices."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from damage.specimens import SPECIMENS
from isolated import Isolated

#: A damaged file must not hold up a reader for longer, in seconds.
LIMIT = 120.0

#: What is right: an error that names the file, or the results of the undamaged file.
RIGHT = ("noticed", "harmless")


@dataclass(frozen=True)
class Trial:
    """One damage and its verdict.

    ``noticed``: an EmbedpipeError that names the file, and nothing wrong before it. ``harmless``: all results are
    bit-identical. ``SILENT``: another result without an error. ``unnamed``: an EmbedpipeError without the file's name.
    ``raised``: another exception. ``crashed``: the process ended or hung.
    """

    kind: str
    file: str
    damage: str
    verdict: str
    detail: str


def damaged(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Return bytes with a flipped bit, several, a block of zeros, or a cut; and which."""
    if not data:
        return b"\0", "a byte added"
    place = rng.randrange(len(data))
    way = rng.choice(("bit", "bit", "bit", "bits", "zeros", "cut", "cut", "hole"))
    if way == "bit":
        bit = rng.randrange(8)
        return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :], f"bit {bit} of byte {place}"
    if way == "bits":
        new = bytearray(data)
        for _ in range(rng.randint(2, 20)):
            new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
        return bytes(new), "several bits"
    length = rng.choice((1, 16, 512, 4096))
    if way == "zeros":
        return data[:place] + bytes(len(data[place : place + length])) + data[place + length :], (
            f"{length} zeros at {place}"
        )
    if way == "hole":
        return data[:place] + data[place + length :], f"{length} bytes cut out at {place}"
    return data[:place], f"cut to {place} bytes"


class Bench:
    """Specimens in a folder, and a process that observes them.

    Parameters
    ----------
    folder : Path
        A new folder.
    """

    def __init__(self, folder: Path, isolated: Isolated) -> None:
        self._folder, self._isolated = folder, isolated
        self._expected: dict[str, dict[str, list[str]]] = {}

    def files(self, name: str, kind: str) -> list[Path]:
        """Return the files of a kind of a specimen, which is made first."""
        self._make(name)
        return sorted(path for path in self._work(name).glob(SPECIMENS[name].kinds[kind]) if path.is_file())

    def trials(self, kinds: Sequence[tuple[str, str]], count: int, seed: int) -> Iterator[Trial]:
        """Yield the verdicts of so many damages of these kinds (specimen, kind), in turn."""
        for number in range(count):
            name, kind = kinds[number % len(kinds)]
            rng = random.Random(f"{seed} {number}")
            files = self.files(name, kind)
            assert files, f"{name} has no file of the kind {kind!r}"
            file = rng.choice(files)
            data = file.read_bytes()
            new, what = damaged(data, rng)
            while new == data:
                new, what = damaged(data, rng)
            yield self.judge(name, kind, file, new, what)

    def judge(self, name: str, kind: str, file: Path, data: bytes, what: str = "") -> Trial:
        """Give a file other content, observe its specimen, and restore it."""
        relative = str(file.relative_to(self._work(name)))
        file.write_bytes(data)
        answer = self._isolated.call("damage.specimens:observe", name, str(self._work(name)), seconds=LIMIT)
        self._restore(name)
        if answer.died:
            return Trial(kind, relative, what, "crashed", f"{answer.died}\n{answer.output[-2000:]}")
        worst, detail = "harmless", ""
        for step, (outcome, value) in answer.value.items():
            verdict = "harmless"
            if outcome == "raised":
                verdict = "raised"
            elif outcome == "refused":
                verdict = "noticed" if file.name in value else "unnamed"
            elif [outcome, value] != self._expected[name][step]:
                verdict = "SILENT"
            order = ("harmless", "noticed", "unnamed", "raised", "SILENT")
            if order.index(verdict) > order.index(worst):
                worst, detail = verdict, f"{step}: {value}"
        return Trial(kind, relative, what, worst, detail)

    def _work(self, name: str) -> Path:
        return self._folder / name.replace(" ", "-")

    def _make(self, name: str) -> None:
        if name in self._expected:
            return
        work = self._work(name)
        made = self._isolated.call("damage.specimens:make", name, str(work), seconds=120)
        assert not made.died, f"{name}: {made.died}\n{made.output}"
        shutil.copytree(work, work.with_suffix(".pristine"))
        outcomes = []
        for _ in range(2):
            answer = self._isolated.call("damage.specimens:observe", name, str(work), seconds=120)
            assert not answer.died, f"{name}: {answer.died}\n{answer.output}"
            outcomes.append(answer.value)
            self._restore(name)
        assert outcomes[0] == outcomes[1], f"{name}: two observations differ: {outcomes}"
        wrong = {step: value for step, (outcome, value) in outcomes[0].items() if outcome != "is"}
        assert not wrong, f"{name}: {wrong}"
        self._expected[name] = outcomes[0]

    def _restore(self, name: str) -> None:
        work = self._work(name)
        shutil.rmtree(work)
        shutil.copytree(work.with_suffix(".pristine"), work)


def all_kinds(names: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return (specimen, kind) of every kind of file, or of some specimens: four times what is read fast."""
    chosen = names or list(SPECIMENS)
    return [(name, kind) for name in chosen for kind in SPECIMENS[name].kinds] + 3 * [
        (name, kind) for name in chosen if not SPECIMENS[name].slow for kind in SPECIMENS[name].kinds
    ]


def table(trials: Sequence[Trial]) -> str:
    """Return counts by kind of file and verdict."""
    verdicts = ("noticed", "harmless", "unnamed", "raised", "crashed", "SILENT")
    counts = Counter((trial.kind, trial.verdict) for trial in trials)
    lines = [f"{'':20}" + "".join(f"{verdict:>10}" for verdict in verdicts)]
    for kind in dict.fromkeys(trial.kind for trial in trials):
        lines.append(f"{kind:20}" + "".join(f"{counts[kind, verdict]:10}" for verdict in verdicts))
    total = Counter(trial.verdict for trial in trials)
    lines.append(f"{'all':20}" + "".join(f"{total[verdict]:10}" for verdict in verdicts))
    return "\n".join(lines)
