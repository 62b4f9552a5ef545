"""Tasks: parts of a listing that workers embed, and what comes back."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from embedpipe.backbones import BackboneSpec
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.embedding.runners.runner import Execution
from embedpipe.embedding.writing.messages import Embedded, Message, Reused, Written
from embedpipe.errors import EmbedpipeError, SourceError
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import RowNumbers, take_near


@dataclass(frozen=True)
class WorkerJob:
    """What every task of a run shares.

    Parameters
    ----------
    run : str
        Name of the run.
    store : str
        Path or URL of the store, which every worker must reach.
    spec : BackboneSpec
        The spec of the store.
    backbone : BackboneOptions
    compute : ComputeOptions
    threads : int
        Threads that prepare items.
    items : int
        Number of items in the source, which decides the engine.
    """

    run: str
    store: str
    spec: BackboneSpec
    backbone: BackboneOptions
    compute: ComputeOptions
    threads: int
    items: int


@dataclass(frozen=True)
class Task:
    """Rows of a listing for a worker.

    Parameters
    ----------
    number : int
    listing : Listing
        These rows only, with their ids and uris.
    values : pyarrow.Table
        Their columns in the types of the store.
    rows : int64 array
        Their numbers in the listing of the run.
    known : bool
        Whether the store has their ids.
    """

    number: int
    listing: Listing
    values: pa.Table
    rows: RowNumbers
    known: bool

    def pickled(self, dumps: Callable[[Any], bytes] = pickle.dumps) -> bytes:
        """Return the task as bytes. Raises SourceError for items in memory that cannot be sent to another process."""
        try:
            return dumps(self)
        except Exception as error:
            raise SourceError(
                f"items in memory must be picklable to be sent to workers, and one is not ({error}): give paths, "
                "bytes, arrays, PIL images or texts"
            ) from error


@dataclass
class TaskResult:
    """What a worker has done with a task: messages with rows of the task, and what the summary of the run needs.

    ``wall`` are the seconds that it took. ``error`` ends the run, as it would end one in a single process.
    """

    number: int
    messages: list[Message] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0
    done: int = 0
    execution: Execution = field(default_factory=Execution)
    error: EmbedpipeError | None = None


def make_task(number: int, rows: RowNumbers, known: bool, listing: Listing, values: pa.Table) -> Task:
    """Return the task of some rows of a listing; ``values`` are its columns in the types of the store."""
    part = listing.take(rows)
    part = dataclasses.replace(part, table=part.table.select(["id", "uri"]))
    return Task(number, part, take_near(values, rows), rows, known)


def in_listing(message: Message, rows: RowNumbers) -> Message:
    """Return a message about a task as one about the listing; ``rows`` are those of the task."""
    if isinstance(message, Embedded | Written):
        return dataclasses.replace(message, rows=rows[message.rows].tolist())
    return dataclasses.replace(message, row=int(rows[message.row])) if isinstance(message, Reused) else message
