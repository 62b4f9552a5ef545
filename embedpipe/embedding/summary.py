"""What a run did: the counts that must add up, and where the time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


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
            spent = time.perf_counter() - start
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent


@dataclass
class EmbedSummary:
    """What an `embedpipe.embed` run did; ``seen == embedded + reused + failed``, always.

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
    gone : int
        Rows of this source whose items are no longer there; ``pruned`` of them were dropped.
    skipped : dict
        Files left out because their names are not those of images, by suffix.
    seconds : float
        Wall time; ``stages`` has the seconds by stage, summed over threads.
    """

    seen: int = 0
    embedded: int = 0
    reused: int = 0
    failed: int = 0
    gone: int = 0
    pruned: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    device: str = ""
    device_reason: str = ""
    batch_size: int = 0
    store: str = ""
    version: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)
