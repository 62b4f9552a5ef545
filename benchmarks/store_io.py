"""How fast does a store write and read, against np.save and np.load of the same bytes?

    python benchmarks/store_io.py [--rows 50000] [--dim 512] [--rounds 5] [--json FILE] [--plot FILE.png]

First all is written, so many rounds of everything one after the other, then all is read likewise; figures are ratios
of the rounds' medians. Reads are warm: from the system's cache of files, into memory that an np.load before has just
given back, as memory that is new to the process takes longer. Written are float32 vectors with ids like paths: "write"
into a store in parts of 16,384 rows, "write, compressed" the same with `compress`. "first read" is `to_numpy()` of a
store opened anew, "cached read" the same once `mapped()` has made its memory map, "1,000 ids" is `take` of ids at
random: in this process, and for the first time in a new one. Sizes are of the data files over 4 bytes a value.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from common import make_parser, write_json

import embedpipe
from embedpipe.backbones import LayerSpec
from embedpipe.decoding import Preprocessing

PART = 16_384
ASKED = 1000

#: What is measured, against what, and the most it should be.
RATIOS = {
    "write": ("np.save", None),
    "write, compressed": ("np.save", None),
    "first read": ("np.load", 4.0),
    "first read, compressed": ("np.load", None),
    "making the map": ("np.load", None),
    "cached read": ("np.load", 1.1),
}

#: Asks a store for ids in a process that is new to it.
FRESH = """
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
    layers = (LayerSpec("features", "avg", X.shape[1]),)
    spec = embedpipe.BackboneSpec("none", "synthetic", "0" * 64, False, layers, Preprocessing())
    store = embedpipe.FeatureStore.create(path, spec, compress=compress)
    vectors = store.schema.field("embedding").type
    for start in range(0, len(X), PART):
        part = X[start : start + PART]
        ids = [f"photos/{row:08d}.jpg" for row in range(start, start + len(part))]
        offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * X.shape[1])
        columns = {
            "id": ids,
            "content_hash": ids,
            "source_root": ["synthetic"] * len(part),
            "embedding": pa.ListArray.from_arrays(offsets, pa.array(part.reshape(-1)), type=vectors),
        }
        store.write(pa.table(columns))
    return store.refresh()


def seconds(work: Callable[[], Any]) -> float:
    """Return how long it takes, with what it gives let go of afterwards."""
    start = time.perf_counter()
    kept = work()
    took = time.perf_counter() - start
    del kept
    return took


def write_round(folder: Path, X: npt.NDArray[np.float32]) -> dict[str, float]:
    """Write everything once, in seconds."""
    found = {
        "np.save": seconds(lambda: np.save(folder / "vectors.npy", X)),
        "write": seconds(lambda: write_store(folder / "plain", X, compress=False)),
        "write, compressed": seconds(lambda: write_store(folder / "small", X, compress=True)),
    }
    for name in ("plain", "small"):
        files = embedpipe.FeatureStore(folder / name).table.files
        found["size" if name == "plain" else "size, compressed"] = sum(one.size for one in files) / X.nbytes
    return found


def make_map(folder: Path) -> dict[str, float]:
    """Make the memory map anew, in seconds."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return {"making the map": seconds(lambda: embedpipe.FeatureStore(folder / "plain").mapped())}


def read_round(folder: Path, seed: int) -> dict[str, float]:
    """Read everything once, in seconds; the first reads look for a map where there is none."""

    def load() -> Any:
        return np.load(folder / "vectors.npy")

    def after_loading(work: Callable[[], Any]) -> float:
        seconds(load)
        return seconds(work)

    found = {"np.load": after_loading(load)}
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "no cache")
    found["first read"] = after_loading(lambda: embedpipe.FeatureStore(folder / "plain").to_numpy())
    found["first read, compressed"] = after_loading(lambda: embedpipe.FeatureStore(folder / "small").to_numpy())
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "cache")
    store = embedpipe.FeatureStore(folder / "plain")
    found["cached read"] = after_loading(store.to_numpy)
    ids, rng = store.ids(), np.random.default_rng(seed)
    asked = [[ids[row] for row in rng.choice(len(ids), min(ASKED, len(ids)), replace=False)] for _ in range(3)]
    store.take(asked[0])
    found["1,000 ids"] = seconds(lambda: store.take(asked[1]))
    command = [sys.executable, "-c", FRESH, str(folder / "plain")]
    done = subprocess.run(command, input=json.dumps(asked[2]), stdout=subprocess.PIPE, text=True, check=True)
    found["1,000 ids, new process"] = float(done.stdout)
    return found


def measure(folder: Path, X: npt.NDArray[np.float32], rounds: int) -> list[dict[str, float]]:
    """Write, map and read, each so many times; reading waits until what was written is on the disk."""
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "cache")
    found = [write_round(folder, X) for _ in range(rounds)]
    if not np.array_equal(embedpipe.FeatureStore(folder / "plain").to_numpy(), X):
        raise SystemExit("the store gives other vectors than were written")
    os.sync()
    for one in found:
        one |= make_map(folder)
    os.sync()
    read_round(folder, rounds)
    for seed, one in enumerate(found):
        one |= read_round(folder, seed)
    return found


def summarise(rounds: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Return the lines of the table: medians over the rounds."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    lines: list[dict[str, Any]] = []
    for name, (base, limit) in RATIOS.items():
        value = median([one[name] for one in rounds]) / median([one[base] for one in rounds])
        lines.append({"what": name, "value": value, "unit": f"x {base}", "limit": limit})
    for name, limit in (("1,000 ids", 20.0), ("1,000 ids, new process", None)):
        lines.append({"what": name, "value": 1e3 * median([one[name] for one in rounds]), "unit": "ms", "limit": limit})
    for name, limit in (("size", None), ("size, compressed", 0.5)):
        lines.append(
            {"what": name, "value": median([one[name] for one in rounds]), "unit": "x float32", "limit": limit}
        )
    return lines


def plot(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the ratios to NumPy as bars, with the limits as marks."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [line for line in lines if line["unit"].startswith("x np.")][::-1]
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    axes.barh([f"{line['what']}\n({line['unit'][2:]} = 1)" for line in shown], [line["value"] for line in shown])
    for at, line in enumerate(shown):
        axes.text(line["value"], at, f" {line['value']:.2f}", va="center")
        if line["limit"]:
            axes.plot([line["limit"]] * 2, [at - 0.4, at + 0.4], color="black", linestyle="--")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.margins(x=0.12)
    axes.set(xlabel="time over NumPy's for the same bytes; dashed: the most it should be", title=title)
    figure.savefig(path, dpi=150)


def main() -> int:
    """Measure, print, and exit with 1 if a limit is missed."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    options = parser.parse_args()
    X = np.random.default_rng(0).standard_normal((options.rows, options.dim), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), X[:2000], 1)  # imports and threads
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
        print(f"{line['what']:<26}{line['value']:>8.2f} {line['unit']}{verdict}")
    write_json(options, {"rows": options.rows, "dim": options.dim, "lines": lines, "rounds": rounds})
    if options.plot:
        plot(lines, options.plot, title)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
