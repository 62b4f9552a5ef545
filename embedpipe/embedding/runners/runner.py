"""What runs the backbone over rows of a listing."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.writing.messages import Message
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import RowNumbers


class Runner(Protocol):
    """Embeds rows of a listing, in this process or elsewhere.

    Attributes
    ----------
    done : int
        Number of embedded items so far.
    idle : float
        Seconds before the first item, in which workers started.
    threads : int
        Threads that prepare items, of one worker.
    batch_size : int
        Items per forward pass.
    device, engine_name, engine_reason : str
        Where the network ran, and by what; empty while nothing has been embedded.
    provenance : dict of str to str
        What the commits record, as `Backbone.provenance`.
    """

    idle: float
    threads: int
    device: str
    engine_name: str
    engine_reason: str
    provenance: dict[str, str]

    @property
    def done(self) -> int: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    def messages(
        self, listing: Listing, rows: RowNumbers, new: int, contents: Contents
    ) -> Generator[Message, None, None]:
        """Yield messages for the writer, with each row exactly once.

        Parameters
        ----------
        listing : Listing
        rows : int64 array
            The rows to read; the store lacks the ids of the first ``new`` ones.
        new : int
        contents : Contents
            The contents of the store at the plan.
        """
        ...
