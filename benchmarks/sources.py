"""What listing and reading a Parquet file of Hugging Face and a video cost, in bytes, memory and time.

    python benchmarks/sources.py --images 10000 --folder /tmp/sources

Bytes are those that the process reads for a second listing, as the first imports modules. Memory is the peak of
anonymous memory beyond that after the first listing. Each line is of a process of its own. The time of reading all
payloads is beside that of reading the file, and of a video beside one pass of PyAV.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe.sources import SourceOptions, open_source

SIZE = 50_000


def write_table(path: Path, count: int, group: int) -> None:
    """Write random bytes as images of `SIZE` bytes, ``group`` in a row group."""
    rng = np.random.default_rng(0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with pq.ParquetWriter(path, pa.schema([("image", kind), ("label", pa.int64())])) as writer:
        for start in range(0, count, group):
            images = [{"bytes": rng.bytes(SIZE), "path": f"{start + i}.jpg"} for i in range(group)]
            writer.write_table(pa.table({"image": pa.array(images, kind), "label": np.arange(group) % 3}), group)


def write_video(path: Path, seconds: int) -> None:
    """Write a video of 1280 x 720 with 30 frames a second, whose blocks move."""
    blocks = np.random.default_rng(0).integers(0, 256, (45, 80, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number in range(30 * seconds):
            frame = av.VideoFrame.from_ndarray(np.roll(blocks, 3 * number, axis=1), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def bytes_read() -> int:
    """Return the bytes that this process has read."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def anonymous() -> int:
    """Return the anonymous memory of this process in kB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(int(line[1]) for line in lines if line[0] == "RssAnon:")


def measure(path: Path, options: SourceOptions) -> None:
    """Print what a listing and then reading all payloads cost."""
    open_source(path, options)
    peak, done = [anonymous()], threading.Event()
    before, start, memory = bytes_read(), time.perf_counter(), anonymous()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    listing = open_source(path, options)
    listed, listing_time = bytes_read() - before, time.perf_counter() - start
    tasks = [range(first, min(first + 8, len(listing))) for first in range(0, len(listing), 8)]
    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rows: [len(listing.read(row)) for row in rows], tasks))
    reading_time = time.perf_counter() - start
    done.set()
    watcher.join()
    read, memory = bytes_read() - before - listed, peak[0] - memory
    print(
        f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {len(listing):,} items; "
        f"listing: {listed / 1e6:.2f} MB read, {listing_time:.2f} s; "
        f"all payloads: {read / 1e6:.0f} MB read, {reading_time:.1f} s; memory +{memory / 1e3:.0f} MB"
    )


def read_file(path: Path) -> None:
    """Read a file as it is."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def decode_all(path: Path, every: int) -> None:
    """Decode a video by PyAV, and convert each ``every``-th frame."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number % every == 0:
                frame.to_ndarray(format="rgb24")


def timed(name: str, call: Callable[[], None]) -> None:
    """Print the seconds of a call."""
    start = time.perf_counter()
    call()
    print(f"{name}: {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Write the files and measure each in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    run = multiprocessing.get_context("spawn")
    for group in (100, arguments.images):
        path = arguments.folder / f"groups-of-{group}.parquet"
        if not path.exists():
            write_table(path, arguments.images, group)
        timed("reading the file", lambda path=path: read_file(path))
        (process := run.Process(target=measure, args=(path, SourceOptions()))).start()
        process.join()
    video = arguments.folder / "video.mp4"
    if not video.exists():
        write_video(video, arguments.seconds)
    timed("one pass of PyAV", lambda: decode_all(video, 30))
    (process := run.Process(target=measure, args=(video, SourceOptions(every="1s")))).start()
    process.join()


if __name__ == "__main__":
    main()
