"""How do time and memory grow with the number of items? Linux and macOS.

    python benchmarks/scale.py [--rows 10000 100000 1000000] [--embedded 1000000] [--files 20000]
        [--log 100000] [--ids 2000000] [--plan 4000000] [--json FILE] [--plot FILE.png]

For each number of rows a Parquet table of short texts with ids and labels is listed, embedded into a new store by a
network that computes almost nothing, and embedded again, when nothing has changed. Then a label is added to each row,
which writes all rows again; and 10,000 rows are removed, which the next run adds ("resume"). Above `--embedded` rows
the store is made of the rows that embedding would have given. Each step runs in a process of its own. Its peak is that
of the memory that the system cannot take back, as it can take that of mapped files (where /proc tells it, else of all
resident memory), compared with that of the same step on the fewest rows. With `--files`, folders of a tenth as many,
and of that many, empty files are listed too.

`--log`: a commit to a table of that many files. `--ids`: a file that another process wrote is added to a table of that
many random ids (`adopt`), and then one beside another writer's. `--plan`: the plan of that many rows with random ids,
of which 10,000 are new, with the lookup of contents. Processor time counts. The exit code is 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from common import make_parser, run_self, synthetic_store, write_json
from deltalake.transaction import AddAction

import embedpipe
from embedpipe.decoding import payload_hash
from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.moves import Moves
from embedpipe.embedding.plan import make_plan
from embedpipe.sources import SourceOptions, open_source
from embedpipe.sources.reading import take_near
from embedpipe.sources.tables.table_files import read_labels
from embedpipe.store.adopting import adopt, write_new_files
from embedpipe.store.data_files import data_file_name
from embedpipe.store.schema import vector_column

#: Upper limit, in MB, of the growth of the peak from the fewest rows.
MAX_GROWTH = 300.0
#: Upper limit, in seconds, of a run in which nothing has changed, up to a number of rows.
MAX_SECONDS, LIMITED_ROWS = 10.0, 1_000_000
#: Upper limits of processor time: seconds of a commit and of adopting a file, microseconds a row of a plan; and its MB.
MAX_COMMIT, MAX_ADOPT, MAX_PLAN, MAX_PLAN_MB = 1.0, 0.05, 4.0, 1000.0

BACKBONE, DIM, PART = "python:lengths.make", 16, 50_000
#: Rows that a killed run has left.
LEFT = 10_000
STEPS = ("list", "embed", "embed again", "label", "cut", "resume")


def id_of(row: int, random: bool) -> str:
    """Return the id of a row; random ones are in the order of nothing."""
    return f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}" if random else f"message-{row:08d}"


def write_table(path: Path, rows: int, random: bool = False) -> None:
    """Write a table of texts, part by part."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("label", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, PART):
            part = range(start, min(start + PART, rows))
            columns = [
                [id_of(row, random) for row in part],
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


def texts(source: str) -> embedpipe.sources.listing.Listing:
    """Return the listing of a table of texts."""
    return open_source(source, SourceOptions(text="text"), "text")


def fill(source: str, store: embedpipe.FeatureStore, rows: int, dim: int) -> None:
    """Add the first rows of a table to a store as embedding would, without a network."""
    listing = texts(source)
    column = pq.ParquetFile(source).iter_batches(PART, columns=["text"])
    for start, batch in zip(range(0, rows, PART), column, strict=False):
        table = take_near(listing.table, np.arange(start, min(start + PART, rows))).drop_columns(["split"])
        words = batch.column(0).slice(0, len(table))
        hashes = [payload_hash(text) for text in words.to_pylist()]
        table = table.append_column("text", words).append_column("content_hash", pa.array(hashes))
        table = table.append_column("source_root", pa.array([listing.root] * len(table)))
        table = table.append_column("embedding", vector_column(np.ones((len(table), dim), np.float32)))
        adopt(store.table, write_new_files(table, store.table), {file.path for file in store.table.files})


def rows_of(ids: list[str]) -> pa.Table:
    """Return rows for the store of `synthetic_store`."""
    columns: dict[str, Any] = {"id": ids, "content_hash": ids, "source_root": ["synthetic"] * len(ids)}
    return pa.table(columns | {"embedding": vector_column(np.ones((len(ids), 8), np.float32))})


def processor_time(work: Callable[[], Any]) -> float:
    """Return the processor time of a call in seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure_log(folder: str, files: int) -> dict[str, Any]:
    """Measure commits to a table of so many files, of which no bytes are there, and opening it."""

    def entries() -> Iterator[AddAction]:
        for number in range(files):
            ids = {"id": f"{number:08d}-a"}, {"id": f"{number:08d}-z"}
            stats = {"numRecords": 768, "minValues": ids[0], "maxValues": ids[1], "nullCount": {"id": 0}}
            name = data_file_name(f"part-{number:08x}-{number:032x}", 768, 1000, ids[0]["id"], ids[1]["id"])
            yield AddAction(name, 1000, {}, 0, True, json.dumps(stats))

    actions = list(entries())
    store = synthetic_store(Path(folder), 8)
    for start in range(0, files, 5000):
        store.table.commit(lambda start=start: (actions[start : start + 5000], [], None), None)
    opening = processor_time(lambda: embedpipe.FeatureStore(folder))
    times = [processor_time(lambda n=n: store.write(rows_of([f"new-{n}"]))) for n in range(5)]
    return {"rows": files, "opening": opening, "processor": sorted(times)[2], "slowest": max(times)}


def measure_adopt(folder: str, ids: int) -> dict[str, Any]:
    """Measure adding a file of 768 rows to a table of random ids, alone and after 100,000 rows of another writer."""
    store = synthetic_store(Path(folder), 8)
    for start in range(0, ids, 100_000):
        rows = rows_of([id_of(row, random=True) for row in range(start, min(start + 100_000, ids))])
        adopt(store.table, write_new_files(rows, store.table), {file.path for file in store.table.files})
    trusted = {file.path for file in store.table.files}
    first = iter(range(ids, ids + 10**9, 768))

    def one() -> float:
        start = next(first)
        files = write_new_files(rows_of([id_of(row, random=True) for row in range(start, start + 768)]), store.table)
        return processor_time(lambda: adopt(store.table, files, trusted))

    alone = sorted(one() for _ in range(5))[2]
    other = embedpipe.FeatureStore(folder)
    others = rows_of([id_of(10**12 + row, random=True) for row in range(100_000)])
    adopt(other.table, write_new_files(others, other.table), {file.path for file in other.table.files})
    upsert = processor_time(lambda: store.write(rows_of([id_of(10**13 + row, random=True) for row in range(768)])))
    return {"rows": ids, "processor": alone, "beside another": one(), "upsert": upsert}


def measure_plan(source: str, to: str) -> dict[str, Any]:
    """Measure the plan of a table against a store that lacks some rows."""
    store, listing = embedpipe.FeatureStore(to), texts(source)
    start = time.process_time()
    plan = make_plan(listing, store)
    middle = time.process_time()

    def parts() -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
        for file in store.table.files:
            rows = store.table.read_file(file, ["content_hash", "id"])
            yield rows.column("content_hash"), rows.column("id")
            pa.default_memory_pool().release_unused()

    contents = Contents(parts(), listing.table.column("id"), plan.index)
    Moves(listing, contents, plan.index, plan.gone, ())
    end = time.process_time()
    rows = len(listing)
    return {
        "rows": rows,
        "new": len(plan.read),
        "plan": 1e6 * (middle - start) / rows,
        "all": 1e6 * (end - start) / rows,
    }


class Peak:
    """Watches the memory of this process that the system cannot take back, in MB, in a thread."""

    def __init__(self) -> None:
        self._most = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            self._most = max(self._most, self._now())
            time.sleep(0.005)

    def _now(self) -> float:
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1e3

    def result(self) -> dict[str, float]:
        """Return the peak, and that of all resident memory."""
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        return {"peak": max(self._most, self._now()) or resident, "resident": resident}


def run_step(step: str, source: str, to: str, rows: int) -> dict[str, Any]:
    """Run one step in this process; the peak is counted from the start of the process."""
    peak = Peak()
    start, processor = time.perf_counter(), time.process_time()
    result: dict[str, Any] = {}
    if step == "list":
        result["rows"] = len(texts(source))
    elif step == "list files":
        result["rows"] = len(open_source(source, SourceOptions(), "image"))
    elif step == "label":
        labels = read_labels(source, "id", "label").table.select(["id", "label"])
        result["rows"] = embedpipe.FeatureStore(to).label(labels, into="late").replaced
    elif step == "make":
        backbone = embedpipe.load_backbone(BACKBONE, modality="text")
        fill(source, embedpipe.FeatureStore.create(to, backbone.spec), rows, DIM)
        result["rows"] = rows
    elif step == "cut":
        store = embedpipe.FeatureStore(to)
        result["rows"] = store.remove(id_of(row, random=False) for row in range(rows - LEFT, rows)).removed
    elif step == "log":
        result |= measure_log(to, rows)
    elif step == "adopt":
        result |= measure_adopt(to, rows)
    elif step == "make plan":
        fill(source, synthetic_store(Path(to), 4), rows - LEFT, 4)
        result["rows"] = rows
    elif step == "plan":
        result |= measure_plan(source, to)
    else:
        store = embedpipe.embed(source, to, backbone=BACKBONE, text="text", progress=False)
        result |= {"rows": store.summary.seen, "embedded": store.summary.embedded}
        result["bytes"], result["files"] = sum(file.size for file in store.table.files), len(store.table.files)
    result["seconds"], result["cpu"] = time.perf_counter() - start, time.process_time() - processor
    return result | peak.result()


def measure(step: str, source: Path, to: Path, rows: int = 0) -> dict[str, Any]:
    """Run a step in a process of its own, and print its line."""
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    arguments = ("--step", step, "--source", source, "--to", to, "--count", rows)
    result: dict[str, Any] = {"step": step} | run_self(__file__, *arguments, environment={"PYTHONPATH": path})
    count = result["rows"]
    line = f"{count:>10,}  {step:<12}{result['seconds']:>8.2f} s, processor {1e6 * result['cpu'] / count:>6.1f} us/row"
    line += f"{result['peak']:>8,.0f} MB, with mapped files {result['resident']:,.0f}"
    if "files" in result:
        line += f"; the store has {result['bytes'] / 1e6:,.0f} MB in {result['files']} files"
    names = ("opening", "processor", "slowest", "beside another", "upsert", "plan", "all")
    line += "".join(f"; {name} {result[name]:.3f}" for name in names if name in result)
    print(line, flush=True)
    return result


def check(results: list[dict[str, Any]]) -> list[str]:
    """Print the growth of the peak in each step, and return the limits that are exceeded, as sentences."""
    missed = []
    for step in dict.fromkeys(result["step"] for result in results):
        runs = [result for result in results if result["step"] == step]
        growth = max(run["peak"] for run in runs) - runs[0]["peak"]
        if len(runs) > 1 and step not in ("make", "cut"):
            more = runs[-1]["rows"] - runs[0]["rows"]
            print(
                f"{step}: the peak grows by {growth:,.0f} MB with {more:,} rows, {1e6 * growth / more:.0f} bytes a row"
            )
            if growth > MAX_GROWTH:
                missed.append(f"{step}: memory grows by more than {MAX_GROWTH:,.0f} MB")
    limits = {("log", "processor"): MAX_COMMIT, ("adopt", "processor"): MAX_ADOPT, ("plan", "all"): MAX_PLAN}
    limits["plan", "resident"] = MAX_PLAN_MB
    for result in results:
        if result["step"] == "embed again" and result["rows"] <= LIMITED_ROWS and result["seconds"] > MAX_SECONDS:
            missed.append(f"embed again: {result['rows']:,} rows take more than {MAX_SECONDS:g} s")
        for (step, name), limit in limits.items():
            if result["step"] == step and result[name] > limit:
                missed.append(f"{step}: {name} is {result[name]:.3g}, and must be at most {limit:g}")
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
        "--rows", type=int, nargs="*", default=[10_000, 100_000], help="numbers of rows (10,000, 100,000)"
    )
    parser.add_argument("--files", type=int, default=0, help="also list folders of this many files (default: none)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw time and memory into this file")
    parser.add_argument("--embedded", type=int, default=1_000_000, help="most rows that are embedded (1,000,000)")
    parser.add_argument("--log", type=int, default=0, help="also commit to a table of this many files (default: none)")
    parser.add_argument(
        "--ids", type=int, default=0, help="also adopt a file into this many random ids (default: none)"
    )
    parser.add_argument("--plan", type=int, default=0, help="also plan this many rows (default: none)")
    for hidden in ("--step", "--source", "--to"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(run_step(options.step, options.source, options.to, options.count)))
        return 0
    results = []
    for rows in sorted(options.rows):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_table(folder / "texts.parquet", rows)
            for step in STEPS:
                made = "make" if step == "embed" and rows > options.embedded else step
                results.append(measure(made, folder / "texts.parquet", folder / "store", rows))
    for count in (options.files // 10, options.files) if options.files else ():
        with tempfile.TemporaryDirectory() as name:
            write_files(Path(name) / "files", count)
            results.append(measure("list files", Path(name) / "files", Path(name)))
    for step, count in (("log", options.log), ("adopt", options.ids), ("plan", options.plan)):
        with tempfile.TemporaryDirectory() as name:
            source, to = Path(name) / "texts.parquet", Path(name) / "store"
            if step == "plan" and count:
                write_table(source, count, random=True)
                measure("make plan", source, to, count)
            if count:
                results.append(measure(step, source, to, count))
    missed = check(results)
    print("\n".join(missed) or "all within the limits")
    write_json(options, results)
    if options.plot:
        plot(results, options.plot)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
