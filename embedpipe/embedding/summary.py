"""What a run did: the counts that must add up, and where the time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from embedpipe.embedding.bottleneck import Bottleneck


class StageTimer:
    """Seconds spent in each named stage, summed over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to ``stage``."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def remarks(counts: Mapping[str, int]) -> list[str]:
    """Return what a user should hear of the texts of a run, as sentences.

    Parameters
    ----------
    counts : mapping of str to int
        Sums of `Item.counts`: ``truncated texts``, ``words``, ``unknown words``, ``texts without a known word``,
        and ``encoding NAME`` for each encoding that had to be detected.
    """
    said = []
    if truncated := counts.get("truncated texts", 0):
        said.append(f"longer than the backbone reads, so that only the start counts (--chunk reads all): {truncated:,}")
    if unknown := counts.get("unknown words", 0):
        words = counts["words"]
        said.append(f"words without a vector: {unknown:,} of {words:,} ({unknown / words:.1%})")
    if empty := counts.get("texts without a known word", 0):
        said.append(f"texts without any word that has a vector, so that theirs is zeros: {empty:,}")
    for name, count in counts.items():
        if name.startswith("encoding "):
            said.append(f"texts in {name.removeprefix('encoding ')}, which was detected: {count:,}")
    return said


@dataclass(repr=False)
class EmbedSummary:
    """What an `embedpipe.embed` run did; ``seen == embedded + reused + failed + others``, always.

    Attributes
    ----------
    seen : int
        Items of the source, those that could not be listed included.
    embedded : int
        Items that went through the backbone and were committed.
    reused : int
        Items whose stored vector still holds: unchanged, moved or renamed, or committed by another writer.
    failed : int
        Items in the failures table.
    others : int
        Items that were left to other processes (``shard``); 0 in a run without shards.
    gone : int
        Rows of this source whose items are no longer there; ``pruned`` of them were dropped.
    skipped : dict
        Files left out because their names are not those of images, or of texts, by suffix.
    counts : dict
        What happened to texts on the way to the backbone, as numbers; see `remarks`.
    seconds : float
        Wall time; ``stages`` has the seconds by stage, summed over threads.
    engine : str
        What ran the network, and in ``engine_reason`` why.
    bottleneck : Bottleneck or None
        Which stage held up the run, and in ``advice`` what would help; None if nothing was embedded.
    """

    seen: int = 0
    embedded: int = 0
    reused: int = 0
    failed: int = 0
    others: int = 0
    gone: int = 0
    pruned: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device: str = ""
    device_reason: str = ""
    engine: str = ""
    engine_reason: str = ""
    bottleneck: Bottleneck | None = None
    advice: str = ""
    batch_size: int = 0
    store: str = ""
    version: int = 0

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}={getattr(self, name):,}" for name in ("seen", "embedded", "reused", "failed"))
        return f"EmbedSummary({counts}, seconds={self.seconds:.1f}, store={self.store!r}, version={self.version})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)
