"""What does it cost to embed on workers of Ray instead of in this process? Linux.

    python benchmarks/on_ray.py [--photos 10000] [--texts 200000] [--workers 2] [--data FOLDER] [--json FILE]

The same items are embedded by one process and by workers of one core each on a cluster of this machine. What is
compared is processor time: user and system time of all threads, of the command alone; of the workers; with the process
that plans and commits; with Ray's own processes. They are asked five times a second, so the last moment of each is
missing. Photos are those of a folder, under as many names as needed, through EfficientNet-Lite0 in torch.
Texts are short and made up, through word vectors, so that nearly nothing but the work around the network is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from common import CLOTHING, SUFFIXES, make_parser, markdown_table, write_json

EMBED = """
import resource, sys, embedpipe
summary = embedpipe.embed(sys.argv[1], sys.argv[2], **eval(sys.argv[3])).summary
assert summary.failed == 0, summary
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, summary.embedded, flush=True)
"""
PHOTO_OPTIONS = {"engine": "torch"}
TEXT_OPTIONS = {"backbone": "word-vectors/glove-6b-50d", "modality": "text", "engine": "torch"}


class Spent(NamedTuple):
    """Processor seconds of the command, of the workers and of Ray's own processes, and the wall time."""

    command: float
    workers: float
    ray: float
    wall: float


def main() -> None:
    """Measure photos and texts, and print a table."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=int, default=10_000, help="number of photos (10,000)")
    parser.add_argument("--texts", type=int, default=200_000, help="number of texts (200,000)")
    parser.add_argument("--workers", type=int, default=2, help="workers of one core each (2)")
    parser.add_argument("--data", type=Path, default=CLOTHING, help="folder of photos")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = (("photos", options.photos, PHOTO_OPTIONS), ("texts", options.texts, TEXT_OPTIONS))
        for name, count, backbone in parts:
            if not count:
                continue
            make = link_photos if name == "photos" else write_texts
            source = make(Path(folder) / name, count, options.data)
            on_ray = {"runner": "ray", "workers": options.workers, "cpus_per_worker": 1}
            alone = run(source, f"{folder}/{name}.alone", {**backbone, "threads": 1})
            shared = run(source, f"{folder}/{name}.ray", {**backbone, **on_ray})
            results[name] = {"items": count, "alone": alone._asdict(), "on Ray": shared._asdict()}
            print(describe(name, count, alone, shared), flush=True)
    heads = ["items", "alone, s", "workers, ratio", "with the driver", "with Ray's own processes"]
    rows = [[*heads, "wall alone, s", "wall on Ray, s"]]
    for name, result in results.items():
        alone, shared = Spent(**result["alone"]), Spent(**result["on Ray"])
        with_driver = shared.workers + shared.command
        ratios = (spent / alone.command for spent in (shared.workers, with_driver, with_driver + shared.ray))
        row = [f"{result['items']:,} {name}", f"{alone.command:.0f}", *(f"{ratio:.2f}" for ratio in ratios)]
        rows.append([*row, f"{alone.wall:.0f}", f"{shared.wall:.0f}"])
    print(markdown_table(rows))
    write_json(options, results)


def describe(name: str, count: int, alone: Spent, shared: Spent) -> str:
    """Return the processor seconds of both runs in one line."""
    return (
        f"{count:,} {name}: alone {alone.command:.1f} s; on Ray workers {shared.workers:.1f} s, driver "
        f"{shared.command:.1f} s, Ray's own processes {shared.ray:.1f} s"
    )


def link_photos(folder: Path, count: int, data: Path) -> Path:
    """Make a folder of the photos of another, under as many names as needed."""
    photos = sorted(path for path in data.rglob("*") if path.suffix.lower() in SUFFIXES)
    for i in range(count):
        place = folder / f"{i // len(photos)}" / f"{i % len(photos):06d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photos[i % len(photos)].read_bytes())
    return folder


def write_texts(file: Path, count: int, data: Path) -> Path:
    """Write a table of short texts."""
    texts = [f"message number {i} of many people in the city" for i in range(count)]
    pq.write_table(pa.table({"text": texts}), file.with_suffix(".parquet"))
    return file.with_suffix(".parquet")


def run(source: Path, to: str, options: dict[str, object]) -> Spent:
    """Embed in a process of its own, and return what it and the workers of Ray spent."""
    env = {**os.environ, "RAY_ADDRESS": "local"}
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", EMBED, source, to, repr(options)], stdout=subprocess.PIPE, env=env
    )
    seconds: dict[tuple[str, int], float] = {}
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(child.pid, seconds, ended))
    watcher.start()
    output, _ = child.communicate()
    ended.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(f"embed failed with exit code {child.returncode}")
    workers, ray = (sum(spent for (kind, _), spent in seconds.items() if kind == each) for each in ("workers", "ray"))
    return Spent(float(output.split()[0]), workers, ray, time.perf_counter() - start)


def watch(pid: int, seconds: dict[tuple[str, int], float], ended: threading.Event) -> None:
    """Note the processor time of the processes below a command until it has ended: workers, and Ray's own."""
    while not ended.wait(0.2):
        try:
            below = psutil.Process(pid).children(recursive=True)
        except psutil.Error:
            return
        for process in below:
            try:
                kind = "workers" if "MapWorker(MapBatches(RayWorker" in process.cmdline()[0] else "ray"
                times = process.cpu_times()
            except (psutil.Error, IndexError):
                continue
            seconds.pop(("ray", process.pid), None)  # a worker has no name before its first task
            seconds[kind, process.pid] = times.user + times.system


if __name__ == "__main__":
    main()
