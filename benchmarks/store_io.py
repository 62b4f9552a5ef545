"""How fast does a store write and read, compared with np.save and np.load of the same bytes?

    python benchmarks/store_io.py [--rows 50000] [--dim 512] [--rounds 5] [--json FILE] [--plot FILE.png]

First everything is written, in as many rounds as given, then everything is read likewise; the ratios are of the medians
over the rounds. Reads are warm: from the system's file cache, into memory that an np.load just before has freed, as
memory that is new to the process takes longer. The data are float32 vectors with ids like paths. "write" is into a
store in parts of 16,384 rows, "write, compressed" the same with `compress`. "first read" is `to_numpy()` of a newly
opened store, "cached read" the same after `mapped()` has made its memory map, "1,000 ids" is `take` of random ids: in
this process, and for the first time in a new one. Sizes are of the data files, relative to 4 bytes per value.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import make_parser, seconds, synthetic_store, write_json, write_vectors

import embedpipe

PART = 16_384
TAKEN_IDS = 1000

#: Measurement -> what it is relative to, and its upper limit.
RATIOS = {
    "write": ("np.save", None),
    "write, compressed": ("np.save", None),
    "first read": ("np.load", 4.0),
    "first read, compressed": ("np.load", None),
    "making the map": ("np.load", None),
    "cached read": ("np.load", 1.1),
}

#: Times `take` in a new process.
NEW_PROCESS = """
import json, sys, time
from embedpipe import FeatureStore
ids = json.load(sys.stdin)
start = time.perf_counter()
FeatureStore(sys.argv[1]).take(ids)
print(time.perf_counter() - start)
"""


def write_store(path: Path, X: npt.NDArray[np.float32], compress: bool) -> embedpipe.FeatureStore:
    """Write vectors into a new store, part by part."""
    shutil.rmtree(path, ignore_errors=True)
    store = synthetic_store(path, X.shape[1], compress)
    for start in range(0, len(X), PART):
        part = X[start : start + PART]
        write_vectors(store, [f"photos/{row:08d}.jpg" for row in range(start, start + len(part))], part)
    return store.refresh()


def write_round(folder: Path, X: npt.NDArray[np.float32]) -> dict[str, float]:
    """Write everything once; return the seconds of each, and the sizes."""
    result = {
        "np.save": seconds(lambda: np.save(folder / "vectors.npy", X)),
        "write": seconds(lambda: write_store(folder / "plain", X, compress=False)),
        "write, compressed": seconds(lambda: write_store(folder / "small", X, compress=True)),
    }
    for name in ("plain", "small"):
        files = embedpipe.FeatureStore(folder / name).table.files
        result["size" if name == "plain" else "size, compressed"] = sum(file.size for file in files) / X.nbytes
    return result


def make_map(folder: Path) -> dict[str, float]:
    """Make the memory map again; return the seconds."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return {"making the map": seconds(lambda: embedpipe.FeatureStore(folder / "plain").mapped())}


def read_round(folder: Path, seed: int) -> dict[str, float]:
    """Read everything once; return the seconds. The first reads find no memory map."""

    def load() -> Any:
        return np.load(folder / "vectors.npy")

    def after_loading(work: Callable[[], Any]) -> float:
        seconds(load)
        return seconds(work)

    result = {"np.load": after_loading(load)}
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "no cache")
    result["first read"] = after_loading(lambda: embedpipe.FeatureStore(folder / "plain").to_numpy())
    result["first read, compressed"] = after_loading(lambda: embedpipe.FeatureStore(folder / "small").to_numpy())
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "cache")
    store = embedpipe.FeatureStore(folder / "plain")
    result["cached read"] = after_loading(store.to_numpy)
    ids, rng = store.ids(), np.random.default_rng(seed)
    samples = [[ids[row] for row in rng.choice(len(ids), min(TAKEN_IDS, len(ids)), replace=False)] for _ in range(3)]
    store.take(samples[0])
    result["1,000 ids"] = seconds(lambda: store.take(samples[1]))
    command = [sys.executable, "-c", NEW_PROCESS, str(folder / "plain")]
    done = subprocess.run(command, input=json.dumps(samples[2]), stdout=subprocess.PIPE, text=True, check=True)
    result["1,000 ids, new process"] = float(done.stdout)
    return result


def measure(folder: Path, X: npt.NDArray[np.float32], rounds: int) -> list[dict[str, float]]:
    """Write, map and read, each ``rounds`` times. All writes are on the disk before the reads begin."""
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "cache")
    results = [write_round(folder, X) for _ in range(rounds)]
    if not np.array_equal(embedpipe.FeatureStore(folder / "plain").to_numpy(), X):
        raise SystemExit("the vectors read from the store differ from those written")
    os.sync()
    for result in results:
        result |= make_map(folder)
    os.sync()
    read_round(folder, rounds)
    for seed, result in enumerate(results):
        result |= read_round(folder, seed)
    return results


def summarise(rounds: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return the lines of the table: medians over the rounds."""

    def median(name: str) -> float:
        return statistics.median(result[name] for result in rounds)

    lines: list[dict[str, Any]] = []
    for name, (base, limit) in RATIOS.items():
        value = median(name) / median(base)
        lines.append({"name": name, "value": value, "unit": f"x {base}", "limit": limit})
    for name, limit in (("1,000 ids", 20.0), ("1,000 ids, new process", None)):
        lines.append({"name": name, "value": 1e3 * median(name), "unit": "ms", "limit": limit})
    for name, limit in (("size", None), ("size, compressed", 0.5)):
        lines.append({"name": name, "value": median(name), "unit": "x float32", "limit": limit})
    return lines


def plot(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the ratios to NumPy as bars, with the limits as dashed marks."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = [line for line in lines if line["unit"].startswith("x np.")][::-1]
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    axes.barh([f"{line['name']}\n({line['unit'][2:]} = 1)" for line in bars], [line["value"] for line in bars])
    for at, line in enumerate(bars):
        axes.text(line["value"], at, f" {line['value']:.2f}", va="center")
        if line["limit"]:
            axes.plot([line["limit"]] * 2, [at - 0.4, at + 0.4], color="black", linestyle="--")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.margins(x=0.12)
    axes.set(xlabel="time relative to NumPy for the same bytes; dashed: upper limit", title=title)
    figure.savefig(path, dpi=150)


def main() -> int:
    """Measure and print; return 1 if a limit is exceeded."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="rows (default: 50,000)")
    parser.add_argument("--dim", type=int, default=512, help="values per row (default: 512)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the ratios into this file")
    options = parser.parse_args()
    X = np.random.default_rng(0).standard_normal((options.rows, options.dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), X[:2000], 1)  # loads modules and threads
        rounds = measure(Path(folder), X, options.rounds)
    lines = summarise(rounds)
    title = f"{options.rows:,} x {options.dim} float32, {X.nbytes / 1e6:,.0f} MB, {options.rounds} rounds"
    print(title)
    missed = 0
    for line in lines:
        verdict = ""
        if line["limit"]:
            missed += line["value"] > line["limit"]
            verdict = f"  at most {line['limit']:g}: {'yes' if line['value'] <= line['limit'] else 'NO'}"
        print(f"{line['name']:<26}{line['value']:>8.2f} {line['unit']}{verdict}")
    write_json(options, {"rows": options.rows, "dim": options.dim, "lines": lines, "rounds": rounds})
    if options.plot:
        plot(lines, options.plot, title)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
