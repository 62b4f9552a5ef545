"""What do time and memory do as the number of items grows? Linux and macOS; exits with 1 if a bound is missed.

    python benchmarks/scale.py [--rows 10000 100000 1000000] [--files 20000] [--json FILE] [--plot FILE.png]

For each number of rows a Parquet table of short texts with ids and labels is listed, embedded into a new store by a
network that does almost nothing, and embedded again, when there is nothing to do; then a late label is given to each
row, which writes all rows anew. Each step runs in a process of its own, whose peak of resident memory is compared
with that of the same step on the fewest rows. With `--files`, folders of a tenth as many, and as many, empty files are
listed, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import make_parser, write_json
from torch import nn

import embedpipe
from embedpipe.backbones import TextNetwork, TextPreprocessing, Tokens
from embedpipe.sources import SourceOptions, open_source

#: The most by which the peak may grow over that of the fewest rows, in MB; and the most seconds that a run with nothing
#: to do may take, for so many rows.
MOST_MEMORY, MOST_SECONDS, MOST_ROWS = 300.0, 10.0, 1_000_000

DIM, PART = 64, 50_000
STEPS = ("list", "embed", "embed again", "label")


class Lengths(nn.Module):
    """A vector for each length of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(97, DIM)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Look the lengths up."""
        found: torch.Tensor = self.table(batch["input_ids"])
        return found


class Splitter:
    """Makes one token of a text, its length."""

    def split(self, text: str, whole: bool) -> Tokens:
        """Return the one token."""
        return Tokens(([len(text) % 97],), (1,), {})

    def collate(self, pieces: Any) -> dict[str, torch.Tensor]:
        """Return a batch."""
        ids = torch.tensor(list(pieces))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def make() -> TextNetwork:
    """Return the network, as ``python:scale.make``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Lengths()
    return TextNetwork("lengths", module, TextPreprocessing("0" * 64, 6), Splitter(), "made up", pretrained=True)


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
        below = folder / f"class-{start // 1000:05d}"
        below.mkdir(parents=True)
        for row in range(start, min(start + 1000, count)):
            (below / f"{row:08d}.jpg").touch()


def run_step(step: str, source: str, to: str) -> dict[str, Any]:
    """Do one step in this process; the peak is the process's, from its start."""
    start = time.perf_counter()
    found: dict[str, Any] = {}
    if step == "list":
        found["rows"] = len(open_source(source, SourceOptions(text="text"), "text"))
    elif step == "list files":
        found["rows"] = len(open_source(source, SourceOptions(), "image"))
    elif step == "label":
        store = embedpipe.FeatureStore(to)
        ids = store.to_arrow(["id"])
        found["rows"] = store.label(ids.append_column("label", pa.repeat("new", len(ids))), into="late").replaced
    else:
        store = embedpipe.embed(source, to, backbone="python:scale.make", text="text", progress=False)
        found |= {"rows": store.summary.seen, "embedded": store.summary.embedded}
        found["bytes"], found["files"] = sum(one.size for one in store.table.files), len(store.table.files)
    found["seconds"] = time.perf_counter() - start
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return found


def measure(step: str, source: Path, to: Path) -> dict[str, Any]:
    """Run a step in a process of its own, and print its line."""
    command = [sys.executable, __file__, "--step", step, "--source", str(source), "--to", str(to)]
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = {"step": step} | json.loads(done.stdout.splitlines()[-1])
    each = 1e6 * found["seconds"] / found["rows"]
    line = f"{found['rows']:>10,}  {step:<12}{found['seconds']:>8.2f} s{each:>9.1f} us a row{found['peak']:>8,.0f} MB"
    if "files" in found:
        line += f"; the store has {found['bytes'] / 1e6:,.0f} MB in {found['files']} files"
    print(line, flush=True)
    return found


def check(results: list[dict[str, Any]]) -> list[str]:
    """Return the bounds that are missed, in words."""
    missed = []
    for step in dict.fromkeys(one["step"] for one in results):
        lines = [one for one in results if one["step"] == step]
        grown = max(one["peak"] for one in lines) - lines[0]["peak"]
        print(f"{step}: the peak grows by {grown:,.0f} MB from {lines[0]['rows']:,} to {lines[-1]['rows']:,} rows")
        if grown > MOST_MEMORY:
            missed.append(f"{step}: memory grows by more than {MOST_MEMORY:,.0f} MB")
    for one in results:
        if one["step"] == "embed again" and one["rows"] <= MOST_ROWS and one["seconds"] > MOST_SECONDS:
            missed.append(f"embed again: {one['rows']:,} rows take more than {MOST_SECONDS:g} s")
    return missed


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw time a row and the peak of memory against the number of rows."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (times, memory) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for step in dict.fromkeys(one["step"] for one in results):
        lines = [one for one in results if one["step"] == step]
        rows = [one["rows"] for one in lines]
        times.plot(rows, [1e6 * one["seconds"] / one["rows"] for one in lines], marker="o", label=step)
        memory.plot(rows, [one["peak"] for one in lines], marker="o", label=step)
    times.set(xscale="log", yscale="log", xlabel="rows", ylabel="microseconds a row")
    memory.set(xscale="log", xlabel="rows", ylabel="peak of resident memory, MB", ylim=(0, None))
    memory.legend()
    figure.savefig(path, dpi=150)


def main() -> int:
    """Run all steps."""
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--files", type=int, default=0, help="list folders of so many files, too")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
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
    print("\n".join(missed) or "all within bounds")
    write_json(options, results)
    if options.plot:
        plot(results, options.plot)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
