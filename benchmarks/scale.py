"""How do time and memory grow with the number of items? Linux and macOS.

    python benchmarks/scale.py [--rows 10000 100000 1000000] [--files 20000] [--json FILE] [--plot FILE.png]

For each number of rows a Parquet table of short texts with ids and labels is listed, embedded into a new store by a
network that computes almost nothing, and embedded again, when nothing has changed; then a label is added to each row,
which writes all rows again. Each step runs in a process of its own, whose peak of resident memory is compared with that
of the same step on the fewest rows. With `--files`, folders of a tenth as many, and of that many, empty files are
listed too. The exit code is 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import make_parser, run_self, write_json
from torch import nn

import embedpipe
from embedpipe.backbones import TextNetwork, TextPreprocessing, Tokens
from embedpipe.sources import SourceOptions, open_source

#: Upper limit, in MB, of the growth of the peak from the fewest rows.
MAX_GROWTH = 300.0
#: Upper limit, in seconds, of a run in which nothing has changed, up to a number of rows.
MAX_SECONDS, LIMITED_ROWS = 10.0, 1_000_000

DIM, PART = 64, 50_000
STEPS = ("list", "embed", "embed again", "label")


class Lengths(nn.Module):
    """A table of one vector for each length of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(97, DIM)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the vectors of the lengths."""
        vectors: torch.Tensor = self.table(batch["input_ids"])
        return vectors


class Splitter:
    """Makes a single token of a text, from its length."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the token of a text."""
        return Tokens(([len(text) % 97],), (1,), {})

    def collate(self, pieces: Any) -> dict[str, torch.Tensor]:
        """Return a batch."""
        ids = torch.tensor(list(pieces))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def make() -> TextNetwork:
    """Return the network of the backbone ``python:scale.make``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Lengths()
    return TextNetwork("lengths", module, TextPreprocessing("0" * 64, 6), Splitter(), "synthetic", pretrained=True)


def write_table(path: Path, rows: int) -> None:
    """Write a table of texts, part by part."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, PART):
            part = range(start, min(start + PART, rows))
            columns = [
                [f"message-{row:08d}" for row in part],
                [f"message number {row} of many, all of them short" for row in part],
                ["spam" if row % 3 else "ham" for row in part],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def write_files(folder: Path, count: int) -> None:
    """Make empty files, a thousand in each subfolder."""
    for start in range(0, count, 1000):
        subfolder = folder / f"class-{start // 1000:05d}"
        subfolder.mkdir(parents=True)
        for row in range(start, min(start + 1000, count)):
            (subfolder / f"{row:08d}.jpg").touch()


def run_step(step: str, source: str, to: str) -> dict[str, Any]:
    """Run one step in this process; the peak is counted from the start of the process."""
    start = time.perf_counter()
    result: dict[str, Any] = {}
    if step == "list":
        result["rows"] = len(open_source(source, SourceOptions(text="text"), "text"))
    elif step == "list files":
        result["rows"] = len(open_source(source, SourceOptions(), "image"))
    elif step == "label":
        store = embedpipe.FeatureStore(to)
        ids = store.to_arrow(["id"])
        result["rows"] = store.label(ids.append_column("label", pa.repeat("new", len(ids))), into="late").replaced
    else:
        store = embedpipe.embed(source, to, backbone="python:scale.make", text="text", progress=False)
        result |= {"rows": store.summary.seen, "embedded": store.summary.embedded}
        result["bytes"], result["files"] = sum(file.size for file in store.table.files), len(store.table.files)
    result["seconds"] = time.perf_counter() - start
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return result


def measure(step: str, source: Path, to: Path) -> dict[str, Any]:
    """Run a step in a process of its own, and print its line."""
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    arguments = ("--step", step, "--source", source, "--to", to)
    result: dict[str, Any] = {"step": step} | run_self(__file__, *arguments, environment={"PYTHONPATH": path})
    rows, time_per_row = result["rows"], 1e6 * result["seconds"] / result["rows"]
    line = f"{rows:>10,}  {step:<12}{result['seconds']:>8.2f} s{time_per_row:>9.1f} us/row{result['peak']:>8,.0f} MB"
    if "files" in result:
        line += f"; the store has {result['bytes'] / 1e6:,.0f} MB in {result['files']} files"
    print(line, flush=True)
    return result


def check(results: list[dict[str, Any]]) -> list[str]:
    """Print the growth of the peak in each step, and return the limits that are exceeded, as sentences."""
    missed = []
    for step in dict.fromkeys(result["step"] for result in results):
        runs = [result for result in results if result["step"] == step]
        growth = max(run["peak"] for run in runs) - runs[0]["peak"]
        print(f"{step}: the peak grows by {growth:,.0f} MB from {runs[0]['rows']:,} to {runs[-1]['rows']:,} rows")
        if growth > MAX_GROWTH:
            missed.append(f"{step}: memory grows by more than {MAX_GROWTH:,.0f} MB")
    for result in results:
        if result["step"] == "embed again" and result["rows"] <= LIMITED_ROWS and result["seconds"] > MAX_SECONDS:
            missed.append(f"embed again: {result['rows']:,} rows take more than {MAX_SECONDS:g} s")
    return missed


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw time per row and peak of memory against the number of rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (times, memory) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for step in dict.fromkeys(result["step"] for result in results):
        runs = [result for result in results if result["step"] == step]
        rows = [run["rows"] for run in runs]
        times.plot(rows, [1e6 * run["seconds"] / run["rows"] for run in runs], marker="o", label=step)
        memory.plot(rows, [run["peak"] for run in runs], marker="o", label=step)
    times.set(xscale="log", yscale="log", xlabel="rows", ylabel="microseconds per row")
    memory.set(xscale="log", xlabel="rows", ylabel="peak of resident memory, MB", ylim=(0, None))
    memory.legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    """Measure all steps; return 1 if a limit is exceeded."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[10_000, 100_000], help="numbers of rows (10,000 and 100,000)"
    )
    parser.add_argument("--files", type=int, default=0, help="also list folders of this many files (default: none)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw time and memory into this file")
    for hidden in ("--step", "--source", "--to"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options.step, options.source, options.to)))
        return 0
    results = []
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_table(folder / "texts.parquet", rows)
            results += [measure(step, folder / "texts.parquet", folder / "store") for step in STEPS]
    for count in (options.files // 10, options.files) if options.files else ():
        with tempfile.TemporaryDirectory() as name:
            write_files(Path(name) / "files", count)
            results.append(measure("list files", Path(name) / "files", Path(name)))
    missed = check(results)
    print("\n".join(missed) or "all within the limits")
    write_json(options, results)
    if options.plot:
        plot(results, options.plot)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
