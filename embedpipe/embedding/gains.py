"""Speed-up of a cheaper precision or decoding, measured at the end of a long run."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe.backbones import ImageNetwork
from embedpipe.backbones.backbone import Backbone
from embedpipe.embedding.bottleneck import Bottleneck
from embedpipe.errors import EmbedpipeError
from embedpipe.sources.listing import Listing

#: Shortest run, in seconds, after which speed-ups are measured.
SHORTEST = 20.0

#: Smallest share of a stage in the wall time, and smallest speed-up of that stage, that are worth reporting.
LEAST_SHARE = 0.3
LEAST_GAIN = 1.3

#: Number of photos on which decoding is measured.
PHOTOS = 16


def find_gains(
    backbone: Backbone, listing: Listing, rows: npt.NDArray[np.int64], bottleneck: Bottleneck, wall: float, store: str
) -> list[str]:
    """Return one sentence per faster setting, with its measured speed-up. Empty after a short run."""
    if wall < SHORTEST:
        return []
    try:
        return _measure(backbone, listing, rows, bottleneck, store)
    except Exception:  # advice must not fail a run, and some networks fail in another precision
        return []


def _measure(
    backbone: Backbone, listing: Listing, rows: npt.NDArray[np.int64], bottleneck: Bottleneck, store: str
) -> list[str]:
    sentences = []
    shares = bottleneck.shares
    if shares["forward"] >= LEAST_SHARE and backbone.spec.precision == "fp32":
        gain = backbone.gain("bf16")
        if gain >= LEAST_GAIN:
            sentences.append(_sentence(option("precision", "bf16"), "forward pass", gain, shares["forward"], store))
    if shares["decode"] + shares["resize"] >= LEAST_SHARE and isinstance(backbone.network, ImageNetwork):
        gain = _decoding_gain(backbone, backbone.network, listing, rows)
        if gain >= LEAST_GAIN:
            sentences.append(
                _sentence(option("decode", "scaled"), "decoding", gain, shares["decode"] + shares["resize"], store)
            )
    return sentences


def _sentence(option: str, stage: str, gain: float, share: float, store: str) -> str:
    total_gain = 1 / (1 - share + share / gain)
    return (
        f"{option}, in a new store, would be {total_gain:.1f} times as fast here ({stage} {gain:.1f} times, measured): "
        f"`embedpipe verify {shlex.quote(store)} {option}` measures how far it moves the vectors"
    )


def _decoding_gain(backbone: Backbone, network: ImageNetwork, listing: Listing, rows: npt.NDArray[np.int64]) -> float:
    """Return the speed-up of preparing photos of a listing when JPEGs are decoded at reduced size."""
    recipe = network.preprocessing
    if recipe.decode == "scaled":
        return 1.0
    chosen = np.random.default_rng(0).choice(rows, min(PHOTOS, len(rows)), replace=False)
    payloads: list[Any] = []
    for row in chosen.tolist():
        try:
            payloads.append(listing.read(row))
        except EmbedpipeError:
            continue
    other = dataclasses.replace(network, preprocessing=dataclasses.replace(recipe, decode="scaled"))
    full, scaled = (
        min(_seconds(variant, payloads) for _ in range(2))
        for variant in (backbone, dataclasses.replace(backbone, network=other))
    )
    return full / scaled if scaled else 1.0


def _seconds(backbone: Backbone, payloads: Sequence[Any]) -> float:
    start = time.perf_counter()
    for payload in payloads:
        try:
            backbone.prepare(payload)
        except EmbedpipeError:
            continue
    return time.perf_counter() - start
