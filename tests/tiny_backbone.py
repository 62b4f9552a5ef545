"""A small real network for tests that need speed: 32 px in, 12 values out; made by ``python:tiny_backbone.make``.

Where the environment variable TINY_LOG names a file, every image that goes through the network adds a byte to it, but
for the copies of the last image that fill a pass.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn

from embedpipe.decoding import Preprocessing


def without_copies(x: torch.Tensor) -> torch.Tensor:
    """Return which images differ from the one before, bool (n,)."""
    return torch.cat([torch.ones(1, dtype=torch.bool), (x[1:] != x[:-1]).flatten(1).any(1)])


class Tiny(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2)
        self.head = nn.Linear(12, 5)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x).relu()).mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if path := os.environ.get("TINY_LOG"):
            with Path(path).open("ab") as log:
                seen = x[without_copies(x)]
                log.write(b"." * int((seen.std((1, 2, 3)) > 0).sum()))  # not the blank one that finds the shapes
        if seconds := float(os.environ.get("TINY_SECONDS", "0")):  # exporters cannot trace a length
            time.sleep(seconds * len(x))
        return self.features(x)


def make(module: type[Tiny] = Tiny) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = module()
    network.preprocessing = Preprocessing(resize=(32,), crop=(32, 32), interpolation="bilinear")
    return network


class Hungry(Tiny):
    """Runs out of memory on more than 4 images; copies that fill a pass need none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if without_copies(x).sum() > 4:
            raise torch.OutOfMemoryError("the tiny device is full")
        return super().forward(x)


def make_hungry() -> nn.Module:
    return make(Hungry)


class Fussy(Tiny):
    """Gives NaN for bright images and raises for dark ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x.mean((1, 2, 3)) < -1.5).any():
            raise ValueError("too dark for me")
        bright = x.mean((1, 2, 3)) > 1.5
        return torch.where(bright[:, None], torch.nan, super().forward(x))


def make_fussy() -> nn.Module:
    return make(Fussy)


class Deadly(Tiny):
    """Ends its process at an image of one bright colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if ((x.std((2, 3)).sum(1) == 0) & (x.mean((1, 2, 3)) > 1.5)).any():
            if path := os.environ.get("TINY_DEATHS"):
                with Path(path).open("ab") as log:
                    log.write(b"x")
            os._exit(17)
        return super().forward(x)


def make_deadly() -> nn.Module:
    return make(Deadly)
