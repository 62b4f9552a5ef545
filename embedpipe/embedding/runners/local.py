"""Embedding in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

from embedpipe._utils.config import usable_cores
from embedpipe.backbones.backbone import Backbone
from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.loop import Forwarder, embed_rows
from embedpipe.embedding.options import ComputeOptions
from embedpipe.embedding.plan import EmbedPlan
from embedpipe.embedding.runners.runner import Execution
from embedpipe.embedding.summary import StageTimer
from embedpipe.embedding.writing.messages import Message
from embedpipe.sources.listing import Listing


class LocalRunner:
    """Runs a loaded backbone in the calling thread, with threads that read and prepare items; see `Runner`."""

    idle = 0.0

    def __init__(self, backbone: Backbone, options: ComputeOptions, timer: StageTimer) -> None:
        self.backbone, self._timer = backbone, timer
        #: Whether the user chose the engine.
        self.is_fixed = options.engine != "auto"
        self._forward = Forwarder(backbone, options.batch_size, timer)
        self.threads = options.threads or usable_cores()
        self._execution = Execution.of(backbone)

    @property
    def done(self) -> int:
        """Number of embedded items so far."""
        return self._forward.done

    @property
    def execution(self) -> Execution:
        """Where the network runs, and by what."""
        return dataclasses.replace(self._execution, batch_size=self._forward.batch_size)

    def messages(self, listing: Listing, plan: EmbedPlan, contents: Contents) -> Generator[Message, None, None]:
        """Yield a message for each batch, and for each row that needs no forward pass."""
        yield from embed_rows(listing, plan.read, self._forward, contents.find, self.threads, self._timer)
