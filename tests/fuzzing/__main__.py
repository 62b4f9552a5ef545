"""``PYTHONPATH=tests python -m fuzzing --minutes 10``: read random inputs, target after target, and keep the faults."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fuzzing.runner import Round, fuzz
from fuzzing.targets import MB, TARGETS
from isolated import LEARNING, Isolated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", default="0", help="decides the inputs")
    parser.add_argument("--only", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--to", type=Path, default=Path("fuzz-faults"), help="folder of the inputs that were wrong")
    arguments = parser.parse_args()
    rounds: dict[str, Round] = {}
    start = time.monotonic()
    with Isolated(LEARNING) as isolated:
        for done in fuzz(isolated, arguments.only, arguments.minutes * 60, arguments.seed, arguments.to):
            for words, file in done.faults.items():
                if done.target not in rounds or words not in rounds[done.target].faults:
                    print(f"{done.target}: {words}\n    {file}", flush=True)
            rounds[done.target] = rounds[done.target] + done if done.target in rounds else done
    print(f"{'':16}{'inputs':>10}{'refused':>10}{'longest (s)':>13}{'memory (MB)':>13}{'faults':>8}")
    for each in rounds.values():
        print(
            f"{each.target:16}{each.inputs:10,}{each.refused:10,}{each.longest:13.2f}{each.memory // MB:13,}"
            f"{len(each.faults):8}"
        )
    total = sum(each.inputs for each in rounds.values())
    print(f"{total:,} inputs in {time.monotonic() - start:.0f} s")
    return int(any(each.faults for each in rounds.values()))


if __name__ == "__main__":
    sys.exit(main())
