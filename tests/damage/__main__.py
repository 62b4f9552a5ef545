"""``PYTHONPATH=tests python -m damage --count 1000``: damage files of every kind, and count what is noticed."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from damage.harness import RIGHT, Bench, all_kinds, table
from damage.specimens import SPECIMENS
from isolated import TRAINING, Isolated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], choices=list(SPECIMENS), help="only these specimens")
    arguments = parser.parse_args()
    start, trials = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="damage-") as folder, Isolated(TRAINING) as isolated:
        bench = Bench(Path(folder), isolated)
        with contextlib.suppress(KeyboardInterrupt):
            for trial in bench.trials(all_kinds(arguments.only), arguments.count, arguments.seed):
                trials.append(trial)
                if trial.verdict not in RIGHT:
                    print(f"{trial.verdict}: {trial.file}, {trial.damage}: {trial.detail}", flush=True)
    print(table(trials))
    print(f"{len(trials)} damages in {time.monotonic() - start:.0f} s")
    return int(any(trial.verdict not in RIGHT for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
