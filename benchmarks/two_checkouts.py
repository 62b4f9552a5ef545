"""Does embedding take longer than in another checkout of embedpipe?

    python benchmarks/two_checkouts.py OTHER [PHOTOS] [--pairs 11] [--backbone timm/tf_efficientnet_lite0] [--json FILE]

Runs ``embedpipe embed PHOTOS`` into a new store from this checkout and from OTHER, in pairs whose order alternates.
One run of each before them is not counted. Both use the libraries of this environment, and torch as the engine. Printed
are this checkout's processor seconds (user and system) and wall seconds relative to OTHER's: the median over the pairs,
the lowest and the highest.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import CLOTHING, make_parser, markdown_table, write_json

HERE = Path(__file__).resolve().parents[1]


def embed(checkout: Path, photos: Path, backbone: str) -> tuple[float, float]:
    """Embed photos by the code of a checkout; return processor seconds and wall seconds."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["embed", str(photos), "--to", f"{folder}/features", "--backbone", backbone]
        command = [sys.executable, "-m", "embedpipe", *words, "--engine", "torch", "--quiet"]
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, env={**os.environ, "PYTHONPATH": str(checkout)})
        after, wall = os.times(), time.perf_counter() - start
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, wall


def main() -> None:
    """Measure the pairs and print their ratios."""
    parser = make_parser(__doc__)
    parser.add_argument("other", type=Path, metavar="OTHER", help="a checkout, for example made by `git worktree add`")
    parser.add_argument("photos", type=Path, nargs="?", default=CLOTHING / "test", help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=11)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    options = parser.parse_args()
    photos = options.photos.resolve()
    checkouts = (HERE, options.other.resolve())
    for checkout in checkouts:
        embed(checkout, photos, options.backbone)
    ratios: list[tuple[float, float]] = []
    for pair in range(options.pairs):
        order = checkouts if pair % 2 else checkouts[::-1]
        spent = {checkout: embed(checkout, photos, options.backbone) for checkout in order}
        this, other = (spent[checkout] for checkout in checkouts)
        ratios.append((this[0] / other[0], this[1] / other[1]))
    table = [["this checkout / the other", "median", "lowest", "highest"]]
    for name, values in zip(("processor seconds", "wall seconds"), zip(*ratios, strict=True), strict=True):
        table.append([name, *(f"{value:.3f}" for value in (statistics.median(values), min(values), max(values)))])
    print(markdown_table(table))
    write_json(options, {"processor": [ratio[0] for ratio in ratios], "wall": [ratio[1] for ratio in ratios]})


if __name__ == "__main__":
    main()
