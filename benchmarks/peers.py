"""How much faster than other libraries is `embedpipe embed`? Prints a table, and draws a plot.

    make peers                             # an environment for each other library, once (about 8 GB), then this script
    python benchmarks/peers.py [--rounds 5] [--limit 128] [--network NAME ...] [--peer NAME ...] [--device cuda]
        [--precision fp16] [--json FILE] [--plot FILE]

The same photos, from files to vectors, with the same weights (benchmarks/networks.py). Each library runs in a process
of its own that loads, warms up on a few photos, and then waits for its turn; benchmarks/peers/with_NAME.py is its
program. Each has one turn in every round. The result is the median over the rounds of the ratio within a round.

1 - cosine compares a library's vectors with embedpipe's, photo by photo, both centred on the mean of embedpipe's: far
from 0 if the library has another preprocessing. embedpipe's time includes the store that it writes; the others keep
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
from common import PHOTOS, centred_cosine, folder_exists, list_photos, make_parser, write_json
from matplotlib.figure import Figure
from networks import NETWORKS, lay_out, weights_of

Vectors = npt.NDArray[np.float32]

HERE = Path(__file__).parent
OURS = "embedpipe"
WARM_UP = 32
RESNETS = ("resnet18", "resnet50")


@dataclass(frozen=True)
class Peer:
    """A library: title in the table, networks, whether it has fp16 and bf16, whether it needs an environment."""

    title: str
    networks: tuple[str, ...] = tuple(NETWORKS)
    half_precision: bool = False
    own_environment: bool = True


#: Name of the program ``peers/with_NAME.py`` and of the environment -> library.
PEERS = {
    OURS: Peer("embedpipe", half_precision=True, own_environment=False),
    "torch": Peer("DataLoader and timm", half_precision=True, own_environment=False),
    "transformers": Peer("transformers' pipeline", half_precision=True),
    "thingsvision": Peer("thingsvision"),
    "img2vec": Peer("img2vec-pytorch", networks=RESNETS),
    "embetter": Peer("embetter"),
}


def machine_name(device: str) -> str:
    """Return what computes, for titles: the number of cores, or the name of the device."""
    return f"{os.cpu_count()} cores" if device == "cpu" else device


def lay_out_folders(photos: Sequence[Path], count: int, folder: Path) -> dict[str, Path]:
    """Return the folders ``photos``, with ``count`` photos, and ``warm``, with a few for the warm-up."""
    warm = lay_out(photos, min(WARM_UP, count), folder / "warm")
    return {"warm": warm, "photos": lay_out(photos, count, folder / "photos")}


def python_of(name: str) -> Path:
    """Return the Python of a peer: that of its environment, or the present one."""
    return HERE / ".peers" / name / "bin" / "python" if PEERS[name].own_environment else Path(sys.executable)


def chosen_peers(names: Sequence[str], precision: str) -> list[str]:
    """Return the peers that can be measured, embedpipe first; print which cannot and why."""
    peers = []
    for name in dict.fromkeys([OURS, *names]):
        if precision != "fp32" and not PEERS[name].half_precision:
            print(f"{PEERS[name].title} is left out: it does not support {precision}")
        elif not python_of(name).is_file():
            print(f"{PEERS[name].title} is left out: it has no environment. `make peers` makes one")
        else:
            peers.append(name)
    return peers


class Runner:
    """A library in a process of its own, loaded and warmed up, that embeds the photos on each request.

    Parameters
    ----------
    name : str
        The peer.
    network, weights
        Network and weights; see `networks.weights_of`.
    folders : dict of str to Path
        ``warm`` and ``photos``: folders of photos, as `networks.lay_out` makes them.
    device, precision : str
    """

    def __init__(
        self, name: str, network: str, weights: Path, folders: dict[str, Path], device: str, precision: str
    ) -> None:
        self.name = f"{PEERS[name].title}, {network}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        program = HERE / "peers" / f"with_{name}.py"
        command = [str(python_of(name)), str(program), "--network", network, "--weights", str(weights)]
        command += ["--device", device, "--precision", precision, "--out", str(self.folder)]
        command += [word for key, folder in folders.items() for word in (f"--{key}", str(folder))]
        with (self.folder / "log").open("w") as log:
            # Offline, as some libraries ask a model hub before they read local files.
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
        answer: dict[str, Any] = json.loads(line)
        return answer

    def seconds(self) -> float:
        """Embed all photos, and return the seconds."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return float(self._answer()["seconds"])

    def vectors(self) -> Vectors:
        """Return the vectors of the last pass, in order of file name."""
        vectors: Vectors = np.load(self.folder / "vectors.npy")
        return vectors

    def close(self) -> None:
        """End the process and delete what it wrote."""
        self.process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def compare(
    network: str, peers: Sequence[str], folders: dict[str, Path], weights: Path, options: Any
) -> dict[str, Any]:
    """Measure all peers on one network, in turns: rate, time relative to embedpipe's, and distance of the vectors."""
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
        reference = runners[OURS].vectors()
        results = {}
        for name, runner in runners.items():
            ratios = [peer / ours for peer, ours in zip(times[name], times[OURS], strict=True)]
            distances = 1 - centred_cosine(runner.vectors(), reference)
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
    for name, result in results.items():
        spread = f"{min(result['ratios']):.2f} to {max(result['ratios']):.2f}"
        print(
            f"{NETWORKS[network]:<20}{PEERS[name].title:<24}{result['images_per_second']:>8.1f}/s{result['ratio']:>8.2f}x"
            f"  {spread:<16}{result['cosine_distance_median']:>10.1e}{result['cosine_distance_max']:>10.1e}"
            f"{result['torch_threads']:>9}",
            flush=True,
        )


def draw(results: dict[str, Any], title: str, path: Path) -> None:
    """Draw images per second as bars, a panel for each network, labelled with the time relative to embedpipe's."""
    counts = [len(rows) for rows in results.values()]
    figure = Figure(figsize=(8, 0.9 + sum(counts) * 0.34 + len(counts) * 0.35), layout="constrained")
    panels = figure.subplots(len(counts), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (network, rows) in zip(panels, results.items(), strict=True):
        rates = [row["images_per_second"] for row in rows.values()]
        colours = ["#1b6ca8" if name == OURS else "#b8c4ce" for name in rows]
        labels = [PEERS[name].title for name in rows]
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
    """Measure, print a table, and draw the plot."""
    parser = make_parser(__doc__)
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="folder of JPEG files (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=128, help="photos; copies are made if there are fewer (default: 128)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default: 5)")
    parser.add_argument(
        "--network", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="timm networks (default: all)"
    )
    parser.add_argument(
        "--peer", nargs="+", choices=PEERS, default=list(PEERS), help="libraries beside embedpipe (default: all)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32", help="(default: fp32)")
    parser.add_argument("--plot", type=Path, help="draw the rates into this PNG file")
    options = parser.parse_args()
    if not folder_exists(options.photos, "--photos"):
        return
    photos = list_photos(options.photos)
    peers = chosen_peers(options.peer, options.precision)
    where = machine_name(options.device)
    print(f"{options.limit} photos, {options.rounds} rounds, {where}, {options.precision}")
    print(
        f"{'network':<20}{'library':<24}{'images':>10}{'time':>9}  {'range':<16}{'1 - cosine':>10}"
        f"{'largest':>10}{'threads':>9}"
    )
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = lay_out_folders(photos, options.limit, Path(scratch))
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
