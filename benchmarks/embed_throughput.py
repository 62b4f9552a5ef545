"""How close does embedding come to the speed of its parts? Prints a table, and draws a plot.

    python benchmarks/embed_throughput.py [--rounds 5] [--limit 256] [--network NAME ...] [--json FILE] [--plot FILE]
    python benchmarks/embed_throughput.py --device cuda --precision bf16 --limit 20000 --network resnet50

Each stage alone, on all cores: reading and hashing files, `prepare` (decode and resize) from bytes in memory, `forward`
on pixels in memory for every available engine, and writing the same rows into a new store. Then end to end with
`embedpipe.embed`, and beside it a DataLoader loop (peers/with_torch.py). Each has one turn in every round.

The ideal takes the best time of each stage in that round. On a CPU the stages share the cores, so it is the sum of
their times; beside a GPU they overlap, so it is the longer of `prepare` and `forward`. The result is the median over
the rounds of end to end relative to ideal within a round. If the folder has fewer photos than --limit, copies are made.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import PHOTOS, folder_exists, list_photos, make_parser, seconds, write_json
from matplotlib.figure import Figure
from networks import NETWORKS, weights_of
from peers import Runner, lay_out_folders, machine_name

import embedpipe
from embedpipe._utils.config import usable_cores
from embedpipe.backbones import Backbone
from embedpipe.backbones.engines.choice import FEWEST
from embedpipe.backbones.engines.engine import TorchEngine
from embedpipe.backbones.engines.exporting import export, fold_batch_norms
from embedpipe.backbones.layers.embedder import Embedder
from embedpipe.decoding import Preprocessing

DEFAULT_NETWORKS = [name for name in NETWORKS if name != "resnet18"]
STAGES = ("read", "prepare", "forward", "write")
COLOURS = ("#9db4c0", "#5b8e7d", "#1b6ca8", "#bc6c25", "#e9ecef")


def on_all_cores(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call ``work`` for every item, in one thread per core, with torch's operators on one thread in each."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(usable_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)


def read_and_hash(path: Path) -> bytes:
    """Return the bytes of a file, after hashing them as `embed` does."""
    payload = path.read_bytes()
    hashlib.sha256(payload).hexdigest()
    return payload


def engines(backbone: Backbone) -> dict[str, Backbone]:
    """Return the same backbone on every engine, by name; the engine that `embed` chooses is last.

    ``torch (n, c, h, w)`` is torch's default layout. Without the extra ``cpu``, `embed` uses ``torch, folded``.
    """
    if backbone.device.type != "cpu":
        return {"torch": backbone}
    network, layers, precision = backbone.network, backbone.spec.layers, backbone.spec.precision

    def with_engine(name: str, module: Any) -> Backbone:
        engine = TorchEngine(module, precision, backbone.device, name=name)
        engine.names = ("pixels",)
        return dataclasses.replace(backbone, engine=engine)

    contiguous = dataclasses.replace(
        network,
        module=copy.deepcopy(network.module).to(memory_format=torch.contiguous_format),
        features=lambda module, pixels: network.features(module, pixels.contiguous()),
    )
    embedder = Embedder(network, layers, ("pixels",))
    assert isinstance(network.preprocessing, Preprocessing)
    example = torch.zeros(2, *network.preprocessing.crop, 3, dtype=torch.uint8)
    graph = export(embedder, (example,)).module()
    result = {
        "torch (n, c, h, w)": with_engine("torch (n, c, h, w)", Embedder(contiguous, layers, ("pixels",))),
        "torch": with_engine("torch", embedder),
    }
    if fold_batch_norms(graph):
        result["torch, folded"] = with_engine("torch, folded", graph)
    chosen = backbone.accelerated(FEWEST)
    return {**result, chosen.engine_name: chosen}


class Bench:
    """All that is timed for one network, on photos that are already in memory.

    Parameters
    ----------
    network, weights
        See `networks.weights_of`.
    folders : dict of str to Path
        ``warm`` and ``photos``.
    scratch : Path
        Folder of the stores.
    device, precision : str
    """

    def __init__(
        self, network: str, weights: Path, folders: dict[str, Path], scratch: Path, device: str, precision: str
    ) -> None:
        self.options: dict[str, Any] = {"backbone": f"timm/{network}", "weights": str(weights), "precision": precision}
        self.device, self.scratch, self.folder = device, scratch, folders["photos"]
        self.backbone = embedpipe.load_backbone(device=device, **self.options)
        self.engines = engines(self.backbone)
        self.paths = sorted(self.folder.iterdir())
        self.payloads = on_all_cores(Path.read_bytes, self.paths)
        self.pixels = np.stack(on_all_cores(self._prepare, self.payloads))
        self.embed(folders["warm"])
        for backbone in self.engines.values():
            backbone.forward(list(self.pixels[: backbone.usual_batch]))
        self.rows = self.embed(self.folder).to_arrow()

    def _prepare(self, payload: bytes) -> Any:
        return self.backbone.prepare(payload).value

    def read(self) -> None:
        """Read and hash all files."""
        on_all_cores(read_and_hash, self.paths)

    def prepare(self) -> None:
        """Decode and resize all photos."""
        on_all_cores(self._prepare, self.payloads)

    def forward(self, backbone: Backbone) -> None:
        """Embed all pixels."""
        for start in range(0, len(self.pixels), backbone.usual_batch):
            batch: Any = self.pixels[start : start + backbone.usual_batch]
            backbone.forward(batch)

    def new_store(self) -> embedpipe.FeatureStore:
        """Return a new empty store."""
        return embedpipe.FeatureStore.create(tempfile.mkdtemp(dir=self.scratch), self.backbone.spec)

    def embed(self, folder: Path) -> embedpipe.FeatureStore:
        """Embed a folder into a new store, and return it."""
        return embedpipe.embed(folder, tempfile.mkdtemp(dir=self.scratch), device=self.device, **self.options)

    def turn(self, eager: Runner) -> dict[str, Any]:
        """Return the seconds of each stage, of end to end and of the loop, each run once."""
        forward = {name: seconds(partial(self.forward, backbone)) for name, backbone in self.engines.items()}
        store = self.new_store()
        result: dict[str, Any] = {
            "read": seconds(self.read),
            "prepare": seconds(self.prepare),
            "forward": min(forward.values()),
            "engines": forward,
            "write": seconds(lambda: store.write(self.rows)),
        }
        with gpu_use(self.device) as use:
            summary = self.embed(self.folder).summary
        result["end to end"] = summary.seconds
        result["summary"] = summary.to_dict()
        result["gpu_use"] = statistics.mean(use) if use else None
        result["eager loop"] = eager.seconds()
        alone = sum(result[stage] for stage in STAGES)
        result["ideal"] = alone if self.device == "cpu" else max(result["prepare"], result["forward"])
        return result


@contextlib.contextmanager
def gpu_use(device: str) -> Iterator[list[float]]:
    """Yield a list that receives the GPU's utilisation in percent, five times a second; it stays empty on a CPU."""
    use: list[float] = []
    if device == "cpu":
        yield use
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    query += ["-i", device.partition(":")[2] or "0"]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            use.append(float(subprocess.check_output(query, text=True)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield use
    finally:
        done.set()
        watcher.join()


def measure(network: str, weights: Path, folders: dict[str, Path], scratch: Path, options: Any) -> dict[str, Any]:
    """Return the medians of one network over the rounds, and the times of all rounds."""
    eager = Runner("torch", network, weights, folders, options.device, options.precision)
    try:
        bench = Bench(network, weights, folders, scratch, options.device, options.precision)
        turns = [bench.turn(eager) for _ in range(options.rounds)]
    finally:
        eager.close()
    names = (*STAGES, "ideal", "end to end", "eager loop")
    return {
        "images_per_second": {name: options.limit / statistics.median(turn[name] for turn in turns) for name in names},
        "engines": {
            name: options.limit / statistics.median(turn["engines"][name] for turn in turns) for name in bench.engines
        },
        "of_ideal": statistics.median(turn["ideal"] / turn["end to end"] for turn in turns),
        "of_eager": statistics.median(turn["eager loop"] / turn["end to end"] for turn in turns),
        "gpu_use": [turn["gpu_use"] for turn in turns],
        "turns": turns,
    }


def show(network: str, result: dict[str, Any]) -> None:
    """Print the row of one network, and its engines."""
    rates = result["images_per_second"]
    columns = "".join(f"{rate:>11.1f}" for rate in rates.values())
    used = [use for use in result["gpu_use"] if use is not None]
    gpu = f"  GPU {statistics.median(used):.0f} %" if used else ""
    print(f"{NETWORKS[network]:<20}{columns}{result['of_ideal']:>9.2f}{result['of_eager']:>9.2f}x{gpu}", flush=True)
    for name, rate in result["engines"].items():
        print(f"  forward on {name}: {rate:.1f}/s", flush=True)


def draw(results: dict[str, Any], title: str, path: Path) -> None:
    """Draw the milliseconds per image: the stages stacked in one bar, then end to end and the eager loop."""
    figure = Figure(figsize=(8, 1.2 + 1.3 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), 1, squeeze=False)[:, 0]
    for axes, (network, result) in zip(panels, results.items(), strict=True):
        times = {name: 1000 / rate for name, rate in result["images_per_second"].items()}
        start = 0.0
        for stage, colour in zip(STAGES, COLOURS, strict=False):
            axes.barh("stages alone", times[stage], left=start, color=colour, label=stage)
            start += times[stage]
        bars = axes.barh(["embedpipe", "eager loop"], [times["end to end"], times["eager loop"]], color="#495057")
        notes = [f"{result['of_ideal']:.2f} of ideal", f"{result['of_eager']:.1f}x the time"]
        axes.bar_label(bars, notes, padding=4)
        axes.set_title(NETWORKS[network], loc="left", fontsize=10, fontweight="bold")
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("milliseconds per image")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STAGES), frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print a table, and draw the plot."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG files (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=256, help="photos; copies are made if there are fewer (default: 256)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=DEFAULT_NETWORKS, help="timm networks")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32", help="(default: fp32)")
    parser.add_argument("--plot", type=Path, help="draw the times into this PNG file")
    options = parser.parse_args()
    if not folder_exists(options.photos, "--photos"):
        return
    photos = list_photos(options.photos)
    where = machine_name(options.device)
    print(f"{options.limit} photos, {options.rounds} rounds, {where}, {options.precision}; images per second")
    columns = "".join(f"{name:>11}" for name in (*STAGES, "ideal", "end to end", "eager loop"))
    print(f"{'network':<20}{columns}{'of ideal':>9}{'of eager':>10}")
    results = {}
    for network in options.network:
        with tempfile.TemporaryDirectory() as scratch:
            folders = lay_out_folders(photos, options.limit, Path(scratch))
            weights = weights_of(network, photos)
            results[network] = measure(network, weights, folders, Path(scratch), options)
        show(network, results[network])
    facts = {
        "photos": options.limit,
        "rounds": options.rounds,
        "device": options.device,
        "precision": options.precision,
        "cores": os.cpu_count(),
    }
    write_json(options, {**facts, "networks": results})
    if options.plot:
        draw(results, f"Where the time goes ({where}, {options.precision})", options.plot)


if __name__ == "__main__":
    main()
