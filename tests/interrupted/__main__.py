"""``PYTHONPATH=tests python -m interrupted --kills 100``: kill all writing verbs, or let the disk be full."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from interrupted.harness import Workshop, build_shim, spread
from interrupted.verbs import VERBS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="over all verbs")
    parser.add_argument("--full", type=int, default=0, help="disks that are full, over all verbs")
    parser.add_argument("--only", nargs="*", default=list(VERBS), choices=list(VERBS))
    arguments = parser.parse_args()
    start, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="interrupted-") as folder:
        shim = build_shim(Path(folder))
        if shim is None:
            print("needs a C compiler")
            return 1
        workshop = Workshop(Path(folder) / "work", shim)
        for verb in arguments.only:
            calls = workshop.calls(verb)
            for what, count in (("kill", arguments.kills), ("fill", arguments.full)):
                outcomes = [
                    getattr(workshop, what)(verb, call) for call in spread(calls, -(-count // len(arguments.only)))
                ]
                bad = [outcome for outcome in outcomes if outcome.wrong]
                for outcome in bad:
                    print(f"{what} {verb} at call {outcome.call} of {calls}: {outcome.wrong}")
                if outcomes:
                    print(f"{what} {verb}: {len(outcomes)} of {calls} calls, {len(bad)} wrong", flush=True)
                wrong += len(bad)
        workshop.close()
    print(f"{wrong} wrong, {time.monotonic() - start:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
