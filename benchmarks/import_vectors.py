"""How long `import_vectors` takes beside a copy of the same file and a write of the same Parquet, and its memory.

    python benchmarks/import_vectors.py --rows 200000 --dim 768 --folder /tmp/vectors

All read the same .npy or Parquet file, and leave what they write synced on disk. They take turns, after a first copy
that fills the cache of files. The write of Parquet is what `pyarrow.parquet.write_table` takes for the vectors as
lists, in files of the same size and options, in threads, in the order of the file, without checks, ids and hashes.

The host of a virtual machine may take back memory that has been free for two seconds (free page reporting). The next
program that uses it waits until the host has found other memory, which can cost more than the copy. So each of them
starts where a copy of the file has just been deleted.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe import import_vectors
from embedpipe._utils.atomic import sync
from embedpipe._utils.config import usable_cores
from embedpipe.sources.vectors.vector_source import open_vectors
from embedpipe.store.data_files import ROW_GROUP_BYTES
from embedpipe.store.schema import VECTOR, vector_column


def copy(source: Path, target: Path) -> None:
    """Copy a file and sync it."""
    shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def write_lists(source: Path, folder: Path) -> None:
    """Write the vectors of a file as lists of Parquet, with the options of a store, and sync them."""
    blocks = list(open_vectors(source).raw_blocks())

    def write_block(number: int) -> None:
        lists = vector_column(np.ascontiguousarray(blocks[number], np.float32))
        table = pa.table([lists], schema=pa.schema([pa.field("embedding", VECTOR, nullable=False)]))
        rows = ROW_GROUP_BYTES // (4 * blocks[number].shape[1])
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        path = folder / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=rows, write_page_checksum=True, **options)
        sync(path)

    folder.mkdir()
    with ThreadPoolExecutor(min(usable_cores() + 1, 4)) as pool:
        list(pool.map(write_block, range(len(blocks))))


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
    names = (f"bench{options.suffix}", "bench.copy", "bench.features", "bench.lists")
    file, copied, to, lists = (options.folder / name for name in names)
    write(file, options.rows, options.dim)
    ids = [f"item-{row:08d}" for row in np.random.default_rng(1).permutation(options.rows)]
    copy(file, copied)
    calls: dict[str, Callable[[], object]] = {
        "copy": lambda: copy(file, copied),
        "write of Parquet": lambda: write_lists(file, lists),
        "import": lambda: import_vectors(file, to, ids=ids, progress=False),
        "import again": lambda: import_vectors(file, to, ids=ids, progress=False),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(options.turns):
        for name, call in calls.items():
            copy(file, copied)
            copied.unlink()
            times[name].append(seconds(call))
            shutil.rmtree(lists, ignore_errors=True)
        shutil.rmtree(to)
    medians = {name: [statistics.median(each) for each in zip(*values, strict=True)] for name, values in times.items()}
    for name, (wall, processor) in medians.items():
        ratio = wall / medians["copy"][0]
        print(f"{name}: {wall:.2f} s, {ratio:.1f} times the copy; {processor:.2f} s of processor time")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{file.stat().st_size / 1e6:,.0f} MB file; peak memory {peak:,.0f} MB, with the pages of the mapped file")
    file.unlink()


if __name__ == "__main__":
    main()
