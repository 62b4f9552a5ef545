"""Runs inputs of a target in a process that may end: the input is on disk before it is read."""

from __future__ import annotations

import faulthandler
import random
import re
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from fuzzing.mutators import mutated
from fuzzing.targets import MB, TARGETS

from embedpipe.errors import EmbedpipeError

#: The longest time that one input may take, in seconds of computing, and in seconds: others may use the machine. The
#: process ends then.
LIMIT = 10.0
WAIT = 120.0


def run(name: str, folder: str, seed: str, seconds: float) -> dict[str, Any]:
    """Read mutated inputs for so many seconds.

    Parameters
    ----------
    folder : str
        Holds the current input, ``current``, while it is read; new kinds of outcome under ``corpus``.
    seed : str
        Decides the inputs.

    Returns
    -------
    dict
        The number of inputs that were read, and of those that were refused; the longest computing time of one, and
        the most memory in bytes; ``faults``: what was wrong -> file under ``folder``.
    """
    target, place, rng = TARGETS[name], Path(folder), random.Random(seed)
    corpus_folder = place / "corpus"
    corpus_folder.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds()
    corpus = seeds + [path.read_bytes() for path in sorted(corpus_folder.iterdir())]
    known = {path.stem for path in corpus_folder.iterdir()}
    faults: dict[str, str] = {}
    inputs = refused = most = 0
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end or not inputs:
        data = mutated(rng.choice(seeds if rng.random() < 0.5 else corpus), rng, corpus, target.tokens)
        if target.repair and rng.random() < 0.5:
            data = target.repair(data)
        outcome, took, memory = _timed(name, data, place)
        inputs += 1
        refused += outcome.startswith("refused")
        longest, most = max(longest, took), max(most, memory)
        if outcome.startswith("fault") or memory > target.memory:
            words = outcome if outcome.startswith("fault") else f"fault: {memory // MB:,} MB of memory"
            file = place / f"fault-{len(faults)}-{abs(hash(words)) % 10**6}"
            if words not in faults:
                file.write_bytes(data)
                faults[words] = str(file)
        elif (kind := _kind(outcome)) not in known and len(known) < 300:
            known.add(kind)
            corpus.append(data)
            (corpus_folder / kind).write_bytes(data)
    return {"inputs": inputs, "refused": refused, "longest": longest, "memory": most, "faults": faults}


def run_one(name: str, file: str, folder: str) -> str:
    """Read one input from a file, and return its outcome."""
    return _timed(name, Path(file).read_bytes(), Path(folder))[0]


def _timed(name: str, data: bytes, place: Path) -> tuple[str, float, int]:
    """Return the outcome of an input, its seconds, and the bytes of memory that it took."""
    (place / "current").write_bytes(data)
    work = place / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    faulthandler.register(signal.SIGPROF, file=sys.__stderr__, chain=True)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    before, start = _reset_peak(), time.process_time()
    try:
        outcome = f"right: {TARGETS[name].read(data, work)}"
    except EmbedpipeError as error:
        outcome = f"refused: {type(error).__name__}: {error}"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"fault: {type(error).__name__} in {where.filename}:{where.lineno}: {str(error)[:300]}"
    took = time.process_time() - start
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome, took, _status("VmHWM") - before


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def _kind(outcome: str) -> str:
    """Return the letters of an outcome without what differs from input to input: the name of a file."""
    words = re.sub(r"'[^']*'|\"[^\"]*\"|[\d.,]+", "", outcome)
    return re.sub(r"[^A-Za-z]+", "-", words)[:80]
