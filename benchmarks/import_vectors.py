"""How long `import_vectors` takes beside a copy of the same file, and how much memory it needs.

    python benchmarks/import_vectors.py --rows 200000 --dim 768 --folder /tmp/vectors

Both read the same .npy or Parquet file, and leave what they write synced on disk. They take turns, after a first copy
that fills the cache of files.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe import import_vectors


def copy(source: Path, target: Path) -> None:
    """Copy a file and sync it."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that a call takes, and those of the processor, which other programs do not add to."""
    start, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - processor


def write(path: Path, rows: int, dim: int) -> None:
    """Write random vectors in blocks, as .npy or as Parquet."""
    rng = np.random.default_rng(0)
    blocks = (rng.standard_normal((min(10_000, rows - start), dim), np.float32) for start in range(0, rows, 10_000))
    if path.suffix == ".npy":
        array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dim))
        for number, block in enumerate(blocks):
            array[number * 10_000 :][: len(block)] = block
        array.flush()
        return
    schema = pa.schema([("vector", pa.list_(pa.float32()))])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for block in blocks:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dim).cast(schema[0].type)
            writer.write_table(pa.table({"vector": lists}))


def main() -> None:
    """Print the times, their ratio, and the peak of anonymous memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--suffix", choices=(".npy", ".parquet"), default=".npy")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    file, copied, to = (options.folder / name for name in (f"bench{options.suffix}", "bench.copy", "bench.features"))
    write(file, options.rows, options.dim)
    ids = [f"item-{row:08d}" for row in np.random.default_rng(1).permutation(options.rows)]
    copy(file, copied)
    times: dict[str, list[tuple[float, float]]] = {"copy": [], "import": [], "import again": []}
    for _ in range(options.turns):
        copied.unlink()
        shutil.rmtree(to, ignore_errors=True)
        times["copy"].append(seconds(lambda: copy(file, copied)))
        for name in ("import", "import again"):
            times[name].append(seconds(lambda: import_vectors(file, to, ids=ids, progress=False)))
    medians = {name: [statistics.median(each) for each in zip(*values, strict=True)] for name, values in times.items()}
    for name, (wall, processor) in medians.items():
        ratio = wall / medians["copy"][0]
        print(f"{name}: {wall:.2f} s, {ratio:.1f} times the copy; {processor:.2f} s of processor time")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{file.stat().st_size / 1e6:,.0f} MB file; peak memory {peak:,.0f} MB, with the pages of the mapped file")
    for path in (file, copied):
        path.unlink()
    shutil.rmtree(to)


if __name__ == "__main__":
    main()
