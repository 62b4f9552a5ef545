"""How far ahead of what people use today is `embedpipe embed`? Prints a table, writes JSON and a plot.

    make peers                             # an environment for each other library, once (about 8 GB), then this script
    python benchmarks/peers.py [--rounds 5] [--limit 128] [--network NAME ...] [--json FILE] [--plot FILE]

The same photos, from files to vectors, with the same weights (benchmarks/networks.py), each library in a process of
its own that loads, warms up on a few photos, and then waits for its turn; see benchmarks/peers/with_NAME.py for what
runs. In every round each has one turn. What counts is the median over the rounds of the ratio within a round.

1 - cosine holds a library's vectors against embedpipe's, photo by photo, both centred on the mean of embedpipe's: far
from 0 where it has a preprocessing of its own. embedpipe's time includes the store that it writes; the others keep
their vectors in memory.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import PHOTOS, make_parser, write_json
from matplotlib.figure import Figure
from networks import NETWORKS, lay_out, list_photos, weights_of

Vectors = npt.NDArray[np.float32]

HERE = Path(__file__).parent
OURS = "embedpipe"
WARM_UP = 32
RESNETS = ("resnet18", "resnet50")


@dataclass(frozen=True)
class Peer:
    """A library: what the table calls it, which networks it knows, and whether in less than fp32."""

    words: str
    networks: tuple[str, ...] = tuple(NETWORKS)
    halves: bool = False
    own_environment: bool = True


#: By the name of its runner, ``peers/with_NAME.py``, and of its environment.
PEERS = {
    OURS: Peer("embedpipe", halves=True, own_environment=False),
    "torch": Peer("DataLoader and timm", halves=True, own_environment=False),
    "transformers": Peer("transformers' pipeline", halves=True),
    "thingsvision": Peer("thingsvision"),
    "img2vec": Peer("img2vec-pytorch", networks=RESNETS),
    "embetter": Peer("embetter"),
}


def python_of(name: str) -> Path:
    """Return the Python that runs a peer: of its own environment, or this one."""
    return HERE / ".peers" / name / "bin" / "python" if PEERS[name].own_environment else Path(sys.executable)


def chosen_peers(names: Sequence[str], precision: str) -> list[str]:
    """Return the peers that can take part, embedpipe first; say which cannot and why."""
    found = []
    for name in dict.fromkeys([OURS, *names]):
        if precision != "fp32" and not PEERS[name].halves:
            print(f"{PEERS[name].words} is left out: it knows no {precision}")
        elif not python_of(name).is_file():
            print(f"{PEERS[name].words} is left out: it has no environment yet; `make peers` makes it")
        else:
            found.append(name)
    return found


class Runner:
    """A library in a process of its own, loaded and warm, that embeds the photos each time it is told to.

    Parameters
    ----------
    name : str
        The peer.
    network, weights
        What it loads; see `networks.weights_of`.
    folders : dict of str to Path
        ``warm`` and ``photos``: folders of photos, as `networks.lay_out` makes them.
    device, precision : str
    """

    def __init__(
        self, name: str, network: str, weights: Path, folders: dict[str, Path], device: str, precision: str
    ) -> None:
        self.name = f"{PEERS[name].words}, {network}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        command = [python_of(name), HERE / "peers" / f"with_{name}.py", "--network", network, "--weights", weights]
        command += ["--device", device, "--precision", precision, "--out", self.folder]
        command += [word for key, folder in folders.items() for word in (f"--{key}", folder)]
        with (self.folder / "log").open("w") as log:
            # Offline, or some ask their hub for news before they take the files that they are given.
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        try:
            self.facts = self._answer()
        except SystemExit:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{self.name} failed:\n{log[-4000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def seconds(self) -> float:
        """Embed all photos, and return how long it took."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return float(self._answer()["seconds"])

    def vectors(self) -> Vectors:
        """Return the vectors of the last pass, in order of the photos' names."""
        found: Vectors = np.load(self.folder / "vectors.npy")
        return found

    def close(self) -> None:
        """End the process and delete what it wrote."""
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def cosine_distances(theirs: Vectors, ours: Vectors) -> npt.NDArray[np.float64]:
    """Return 1 - cosine of each pair of rows, both centred on the mean of ``ours``."""
    centre = ours.mean(axis=0, dtype=np.float64)
    a, b = theirs - centre, ours - centre
    distances: npt.NDArray[np.float64] = 1 - (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return distances


def compare(
    network: str, peers: Sequence[str], folders: dict[str, Path], weights: Path, options: Any
) -> dict[str, Any]:
    """Run all peers on one network, in turns; return for each its rate, embedpipe's over it, and its vectors' error."""
    with contextlib.ExitStack() as stack:
        runners = {}
        for name in peers:
            if network in PEERS[name].networks:
                runners[name] = Runner(name, network, weights, folders, options.device, options.precision)
                stack.callback(runners[name].close)
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(options.rounds):
            for name, runner in runners.items():
                times[name].append(runner.seconds())
        ours = runners[OURS].vectors()
        results = {}
        for name, runner in runners.items():
            ratios = [theirs / own for theirs, own in zip(times[name], times[OURS], strict=True)]
            distances = cosine_distances(runner.vectors(), ours)
            results[name] = {
                "images_per_second": options.limit / statistics.median(times[name]),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "seconds": times[name],
                "cosine_distance_median": float(np.median(distances)),
                "cosine_distance_max": float(distances.max()),
                **runner.facts,
            }
    return results


def show(network: str, results: dict[str, Any]) -> None:
    """Print the rows of one network."""
    for name, found in results.items():
        spread = f"{min(found['ratios']):.2f} to {max(found['ratios']):.2f}"
        print(
            f"{NETWORKS[network]:<20}{PEERS[name].words:<24}{found['images_per_second']:>8.1f}/s{found['ratio']:>8.2f}x"
            f"  {spread:<16}{found['cosine_distance_median']:>10.1e}{found['cosine_distance_max']:>10.1e}"
            f"{found['torch_threads']:>9}",
            flush=True,
        )


def draw(results: dict[str, Any], title: str, path: Path) -> None:
    """Draw images per second as bars, a panel a network, with the times of embedpipe that each takes."""
    counts = [len(rows) for rows in results.values()]
    figure = Figure(figsize=(8, 0.9 + sum(counts) * 0.34 + len(counts) * 0.35), layout="constrained")
    panels = figure.subplots(len(counts), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (network, rows) in zip(panels, results.items(), strict=True):
        rates = [row["images_per_second"] for row in rows.values()]
        colours = ["#1b6ca8" if name == OURS else "#b8c4ce" for name in rows]
        labels = [PEERS[name].words for name in rows]
        bars = axes.barh(labels, rates, color=colours)
        times = ["" if name == OURS else f" ({row['ratio']:.1f}x the time)" for name, row in rows.items()]
        axes.bar_label(bars, [f"{rate:.1f}{text}" for rate, text in zip(rates, times, strict=True)], padding=3)
        axes.set_title(NETWORKS[network], loc="left", fontsize=10, fontweight="bold")
        axes.invert_yaxis()
        axes.margins(x=0.22)
        axes.set_xticks([])
        axes.spines[["top", "right", "bottom"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run all."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="a folder with JPEGs")
    parser.add_argument("--limit", type=int, default=128, help="photos; copies are made where there are fewer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS), help="beside embedpipe")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
    parser.add_argument("--plot", type=Path, help="draw them into this PNG")
    options = parser.parse_args()
    if not options.photos.is_dir():
        print(f"left out: no folder {options.photos}; name one with --photos")
        return
    photos = list_photos(options.photos)
    peers = chosen_peers(options.peer, options.precision)
    where = f"{os.cpu_count()} cores" if options.device == "cpu" else options.device
    print(f"{options.limit} photos, {options.rounds} rounds, {where}, {options.precision}")
    print(
        f"{'network':<20}{'library':<24}{'images':>10}{'time':>9}  {'over the rounds':<16}{'1 - cosine':>10}"
        f"{'at worst':>10}{'threads':>9}"
    )
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            "warm": lay_out(photos, min(WARM_UP, options.limit), Path(scratch) / "warm"),
            "photos": lay_out(photos, options.limit, Path(scratch) / "photos"),
        }
        for network in options.network:
            weights = weights_of(network, photos)
            results[network] = compare(network, peers, folders, weights, options)
            show(network, results[network])
    facts = {
        "photos": options.limit,
        "rounds": options.rounds,
        "device": options.device,
        "precision": options.precision,
        "cores": os.cpu_count(),
        "embedpipe": importlib.metadata.version("embedpipe"),
    }
    write_json(options, {**facts, "networks": results})
    if options.plot:
        draw(results, f"Images per second, from files to vectors ({where}, {options.precision})", options.plot)


if __name__ == "__main__":
    main()
