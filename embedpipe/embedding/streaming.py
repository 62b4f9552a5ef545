"""Vectors of a listing without a store, for callers that use each batch once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator

import numpy as np

from embedpipe._utils.config import usable_cores
from embedpipe._utils.progress import Progress
from embedpipe.backbones.backbone import Backbone
from embedpipe.embedding.loop import Forwarder, embed_rows
from embedpipe.embedding.options import ComputeOptions
from embedpipe.embedding.summary import StageTimer, remarks
from embedpipe.embedding.writing.messages import Embedded, add_counts
from embedpipe.errors import Failure
from embedpipe.sources.listing import Listing


def stream_vectors(
    listing: Listing, backbone: Backbone, options: ComputeOptions, progress: Progress
) -> Generator[Embedded | Failure, None, None]:
    """Yield the vectors of a listing batch by batch, and a Failure for each failed item.

    Failures of the listing come first. Memory holds a few batches.
    """
    progress.say_all([*backbone.network.notes, *listing.notes])
    yield from listing.failures
    counts: Counter[str] = Counter()
    rows = np.arange(len(listing))
    timer = StageTimer()
    if options.engine == "auto":
        with progress.step("choosing an engine"):
            backbone = backbone.accelerated(len(rows))
    forward = Forwarder(backbone, options.batch_size, timer)
    messages = embed_rows(listing, rows, forward, lambda row, digest: None, options.threads or usable_cores(), timer)
    with progress.step("embedding", len(rows)) as advance, contextlib.closing(messages):
        for message in messages:
            if isinstance(message, Embedded | Failure):
                yield message
                advance(len(message.rows) if isinstance(message, Embedded) else 1)
                add_counts(counts, message.counts if isinstance(message, Embedded) else ())
    progress.say_all(remarks(counts))
