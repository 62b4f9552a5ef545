"""How fast a backbone embeds on this machine: a short run of `embed` itself, on a sample, into a store thrown away."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedpipe._utils.device import choose_device
from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import BackboneOptions
from embedpipe.diagnosis import samples
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.embedding.run import embed_listing
from embedpipe.embedding.summary import EmbedSummary
from embedpipe.errors import BackboneError, SourceError
from embedpipe.sources import list_items
from embedpipe.sources.listing import Listing, numbered
from embedpipe.store import FeatureStore

#: How many items a job may have, where nobody says.
SIZES_OF_JOBS = (10_000, 100_000, 1_000_000)
SEED = 0


@dataclass(frozen=True)
class TimeEstimate:
    """What a short run of `embed` says of a long one.

    Attributes
    ----------
    backbone, precision, decode, device, engine : str
        What ran, and where; texts have no decode.
    source : str
        What was embedded, in words.
    items, failed : int
        How many items were measured, and how many of them failed.
    seconds : float
        That these took; ``load_seconds`` were for the network and its first batch, before.
    rate : float
        Items a second.
    shares : dict
        Stage -> its share of the wall time; see `embedpipe.embedding.bottleneck`.
    advice : str
        What would make the slowest of them faster.
    batch_size : int
    hours : dict
        Number of items -> how long they would take, in hours.
    notes : list of str
        What a user should hear of the sample.
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


def estimate(
    options: BackboneOptions,
    compute: ComputeOptions,
    listing: Listing | None,
    items: int | None,
    seconds: float,
    progress: Progress,
) -> TimeEstimate:
    """Measure how fast a backbone embeds a sample of a listing, or of what is at hand.

    Parameters
    ----------
    options : BackboneOptions
    compute : ComputeOptions
    listing : Listing, optional
        What to embed; without it photographs or texts that come with scikit-learn.
    items : int, optional
        Of the job to tell the hours of; by default as many as the listing has.
    seconds : float
        About how long to measure.

    Raises
    ------
    EmbedpipeError
        If the backbone cannot be loaded, or no item of the sample can be embedded.
    """
    start = time.perf_counter()
    backbone = load_with_options(options, choose_device(compute.device)[0])
    sizes = [items] if items else [len(listing)] if listing is not None else SIZES_OF_JOBS
    if compute.engine == "auto":
        backbone.accelerated(max(sizes))  # what a job of that size runs on is found, and taken from here on
    progress.say(f"measuring {backbone.spec.provider}/{backbone.spec.name} for about {seconds:g} s")
    source, whole = _source(backbone, listing)
    run = RunOptions(**{f.name: getattr(compute, f.name) for f in dataclasses.fields(ComputeOptions)})
    batch = run.batch_size or backbone.usual_batch
    _embed(whole, batch, backbone, run)  # what is made on first use is made
    loaded = time.perf_counter() - start
    count, measured = batch, _embed(whole, batch, backbone, run)
    while measured.embedded and measured.seconds < seconds / 2:  # a short run is half plans and commits
        count = batch * max(2 * count // batch, round(0.75 * seconds / measured.seconds * count / batch))
        measured = _embed(whole, count, backbone, run)
    if not measured.embedded:
        raise BackboneError(f"none of {measured.seen} items could be embedded ({source}): `embedpipe embed` says why")
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
        raise SourceError(f"no item of {listing.root!r} could be listed: `embedpipe embed` says why")
    if listing is not None:
        return f"a random sample of {listing.root}", listing
    made: Any = samples.texts() if backbone.spec.modality == "text" else samples.photographs()
    kind = "paragraphs" if backbone.spec.modality == "text" else "photographs"
    return f"{len(made)} {kind} that come with scikit-learn, again and again", list_items(
        made, modality=backbone.spec.modality
    )


def _embed(listing: Listing, count: int, backbone: Backbone, run: RunOptions) -> EmbedSummary:
    """Embed so many rows of a listing, chosen by chance, into a new store that is not kept."""
    chosen = np.resize(np.random.default_rng(SEED).permutation(len(listing)), count)
    table = listing.table.take(pa.array(chosen)).set_column(0, "id", numbered("", count))
    sample = dataclasses.replace(listing, table=table, read=lambda row: listing.read(int(chosen[row])), failures=())
    with tempfile.TemporaryDirectory(prefix="embedpipe-doctor-") as folder:
        store = FeatureStore.create(Path(folder) / "store", backbone.spec)
        return embed_listing(sample, store, backbone, run, Progress(False))
