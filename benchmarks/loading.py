"""How long does loading a large network take, with and without a forward pass for the shapes of its outputs?

    python benchmarks/loading.py [--networks timm/vit_large_patch16_224 timm/samvit_base_patch16] [--json FILE]

Weights are random. Each network is built once; its layers are then planned on the meta device, as `load_backbone` does,
and by a pass over two blank images at full size, as it did before. A ratio is of two measurements in the same run.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass

from common import make_parser, write_json

from embedpipe import load_backbone
from embedpipe.backbones import ImageNetwork
from embedpipe.backbones.layers import dry_run
from embedpipe.backbones.layers.capture import plan_layers


@dataclass
class Loading:
    """Seconds to load a network, and to find the shapes of its features in both ways."""

    network: str
    load: float
    meta: float
    full_pass: float

    @property
    def ratio(self) -> float:
        """Return how many times as long loading took before."""
        return (self.load - self.meta + self.full_pass) / self.load


def plan(network: ImageNetwork, least: float) -> float:
    """Return the seconds to plan the layers, if networks from that size on are tried out without arithmetic."""
    usual, dry_run.LARGE = dry_run.LARGE, least
    try:
        start = time.perf_counter()
        plan_layers(network, ["features"])
        return time.perf_counter() - start
    finally:
        dry_run.LARGE = usual


def main() -> int:
    """Measure all networks."""
    parser = make_parser(__doc__)
    parser.add_argument("--networks", nargs="+", default=["timm/vit_large_patch16_224", "timm/samvit_base_patch16"])
    options = parser.parse_args()
    print(f"{'network':<32}{'load':>8}{'meta':>8}{'full pass':>11}{'before / now':>14}")
    rows = []
    for name in options.networks:
        start = time.perf_counter()
        network = load_backbone(name, weights="none", device="cpu").network
        seconds = time.perf_counter() - start
        assert isinstance(network, ImageNetwork)
        row = Loading(name, seconds, plan(network, 0), plan(network, float("inf")))
        rows.append(row)
        print(f"{name:<32}{row.load:>7.1f}s{row.meta:>7.2f}s{row.full_pass:>10.1f}s{row.ratio:>14.1f}", flush=True)
    write_json(options, [{**asdict(row), "ratio": row.ratio} for row in rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
