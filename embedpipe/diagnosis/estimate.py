"""How fast a backbone embeds on this machine: a short run of `embed` on a sample, into a temporary store."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe._utils.device import choose_device
from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import BackboneOptions
from embedpipe.diagnosis import samples
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.embedding.summary import EmbedSummary
from embedpipe.embedding.updating import embed_listing
from embedpipe.errors import BackboneError, SourceError
from embedpipe.sources import list_items
from embedpipe.sources.listing import Listing, numbered
from embedpipe.store import FeatureStore

#: Numbers of items for which the hours are estimated if neither a number nor a source is given.
SIZES_OF_JOBS = (10_000, 100_000, 1_000_000)
SEED = 0


@dataclass(frozen=True)
class TimeEstimate:
    """The speed of a short run of `embed`, and how long larger jobs take at that speed.

    Attributes
    ----------
    backbone, precision, decode, device, engine : str
        What ran, and where; ``decode`` is None for texts.
    source : str
        A description of the items.
    items, failed : int
        The number of items that were measured, and how many of them failed.
    seconds : float
        The time for these items.
    load_seconds : float
        The time for loading the network and for the first batch, which is not part of ``seconds``.
    rate : float
        Items a second.
    shares : dict
        Stage -> its share of the wall time; see `embedpipe.embedding.bottleneck`.
    advice : str
        How to speed up the slowest stage.
    batch_size : int
    hours : dict
        Number of items -> hours that they take at this rate.
    notes : list of str
        Remarks on the sample, such as truncated texts.
    """

    backbone: str
    precision: str
    decode: str | None
    device: str
    engine: str
    source: str
    items: int
    failed: int
    seconds: float
    load_seconds: float
    rate: float
    shares: dict[str, float]
    advice: str
    batch_size: int
    hours: dict[int, float]
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"TimeEstimate({self.backbone!r}, rate={self.rate:.1f}, device={self.device!r}, engine={self.engine!r})"


def estimate(
    options: BackboneOptions,
    compute: ComputeOptions,
    listing: Listing | None,
    items: int | None,
    seconds: float,
    progress: Progress,
) -> TimeEstimate:
    """Measure how fast a backbone embeds a sample of a listing, or scikit-learn's photographs or texts.

    Parameters
    ----------
    options : BackboneOptions
    compute : ComputeOptions
    listing : Listing, optional
        The items to sample; by default photographs or texts of scikit-learn.
    items : int, optional
        The size of the job whose hours are estimated; by default that of the listing.
    seconds : float
        Approximate duration of the measurement.

    Raises
    ------
    EmbedpipeError
        If the backbone cannot be loaded, or no item of the sample can be embedded.
    """
    start = time.perf_counter()
    backbone = load_with_options(options, choose_device(compute.device)[0])
    sizes = [items] if items else [len(listing)] if listing is not None else SIZES_OF_JOBS
    if compute.engine == "auto":
        backbone = backbone.accelerated(max(sizes))  # the smaller runs of the measurement keep it
    progress.say(f"measuring {backbone.spec.provider}/{backbone.spec.name} for about {seconds:g} s")
    source, items_listing = _source(backbone, listing)
    run = RunOptions(**{f.name: getattr(compute, f.name) for f in dataclasses.fields(ComputeOptions)})
    batch = run.batch_size or backbone.usual_batch
    _embed(items_listing, batch, backbone, run)  # warm up
    loaded = time.perf_counter() - start
    count, measured = batch, _embed(items_listing, batch, backbone, run)
    # In a short run, planning and commits take much of the time.
    while measured.embedded and measured.seconds < seconds / 2:
        count = batch * max(2 * count // batch, round(0.75 * seconds / measured.seconds * count / batch))
        measured = _embed(items_listing, count, backbone, run)
    if not measured.embedded:
        raise BackboneError(
            f"none of {measured.seen} items could be embedded ({source}): run `embedpipe embed` to see why"
        )
    rate = measured.seen / measured.seconds
    return TimeEstimate(
        backbone=f"{backbone.spec.provider}/{backbone.spec.name}",
        precision=backbone.spec.precision,
        decode=getattr(backbone.spec.preprocessing, "decode", None),
        device=str(backbone.device),
        engine=measured.engine,
        source=source,
        items=measured.seen,
        failed=measured.failed,
        seconds=measured.seconds,
        load_seconds=loaded,
        rate=rate,
        shares=measured.bottleneck.shares if measured.bottleneck else {},
        advice=measured.advice,
        batch_size=measured.batch_size,
        hours={size: size / rate / 3600 for size in sizes},
        notes=measured.notes,
    )


def _source(backbone: Backbone, listing: Listing | None) -> tuple[str, Listing]:
    if listing is not None and not len(listing):
        raise SourceError(f"no item of {listing.root!r} could be listed: run `embedpipe embed` to see why")
    if listing is not None:
        return f"a random sample of {listing.root}", listing
    items: Any = samples.texts() if backbone.spec.modality == "text" else samples.photographs()
    kind = "paragraphs" if backbone.spec.modality == "text" else "photographs"
    return f"{len(items)} {kind} of scikit-learn, repeated", list_items(items, modality=backbone.spec.modality)


def _embed(listing: Listing, count: int, backbone: Backbone, run: RunOptions) -> EmbedSummary:
    """Embed ``count`` rows of a listing, drawn at random, into a temporary store."""
    chosen = np.resize(np.random.default_rng(SEED).permutation(len(listing)), count)
    sample = listing.take(chosen)
    sample = dataclasses.replace(sample, table=sample.table.set_column(0, "id", numbered("", count)))
    with tempfile.TemporaryDirectory(prefix="embedpipe-doctor-") as folder:
        store = FeatureStore.create(Path(folder) / "store", backbone.spec)
        return embed_listing(sample, store, backbone, run, Progress(False))
