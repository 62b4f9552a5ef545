"""Summary of a run: counts of items and seconds by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import option
from embedpipe.embedding.bottleneck import Bottleneck
from embedpipe.embedding.failure_limit import FailureLimit
from embedpipe.errors import ExitCode
from embedpipe.statistics.percentages import percent
from embedpipe.store.editing.labelling import Outcome

#: Failed items in a summary.
FAILURES_SHOWN = 100


class StageTimer:
    """Seconds by stage, summed over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of the block to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to ``stage``."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Return the seconds by stage, and begin again."""
        with self._lock:
            seconds, self.seconds = self.seconds, {}
        return seconds


def _picture_remarks() -> dict[str, tuple[str, str]]:
    """Return remarks on what was left out of pictures or inferred.

    The key counts the pictures; the value is the remark, and the key that counts the things.
    """
    pages, channels = option("tiff_pages", "all"), option("channels")
    return {
        "files of several pages": (f"embedded as their first page ({pages} embeds each)", "pages left out"),
        "files of several frames": ("embedded as their first frame", "frames left out"),
        "images with channels left out": (f"embedded by their colours ({channels} picks others)", "channels left out"),
        "images with values beyond the range": ("clipped", ""),
        "images with transparency": ("composited on white", ""),
        "CMYK images without a profile": ("converted by formula", ""),
        "unreadable colour profiles": ("taken for sRGB", ""),
    }


def remarks(counts: Mapping[str, int]) -> list[str]:
    """Return remarks on the pictures or texts of a run or store, as sentences.

    Parameters
    ----------
    counts : mapping of str to int
        Sums of `Item.counts`. For texts: ``truncated texts``, ``words``, ``unknown words``, ``texts without a known
        word``, ``unknown tokens``, ``texts with unknown tokens``, ``texts without a known token``, and ``encoding
        NAME`` for each detected encoding. For pictures: the keys of `_picture_remarks`, and ``range LOW:HIGH`` for each
        inferred range.
    """
    sentences = []
    for name, (remark, things) in _picture_remarks().items():
        if count := counts.get(name, 0):
            more = f", {counts[things]:,} {things}" if things else ""
            sentences.append(f"{name}, {remark}: {count:,}{more}")
    for name, count in counts.items():
        if name.startswith("range "):
            bounds = name.removeprefix("range ")
            sentences.append(
                f"images of more than 8 bits taken as {bounds} by their largest value ({option('range', ...)}): "
                f"{count:,}"
            )
    if truncated := counts.get("truncated texts", 0):
        sentences.append(
            f"texts cut to the length that the backbone reads ({option('chunk', True)} reads all of a text): "
            f"{truncated:,}"
        )
    if unknown := counts.get("unknown words", 0):
        words = counts["words"]
        sentences.append(f"words without a vector: {unknown:,} of {words:,} ({percent(unknown / words)})")
    if empty := counts.get("texts without a known word", 0):
        sentences.append(f"texts without a known word, embedded as zeros: {empty:,}")
    if unknown := counts.get("unknown tokens", 0):
        texts = counts["texts with unknown tokens"]
        sentences.append(
            f"unknown words or signs, which the tokenizer replaces by one token: {unknown:,} in {texts:,} texts"
        )
    if empty := counts.get("texts without a known token", 0):
        sentences.append(
            f"texts of unknown words or signs only, whose vectors say nothing of their content: {empty:,} "
            "(use a backbone of their language)"
        )
    for name, count in counts.items():
        if name.startswith("encoding "):
            sentences.append(f"texts in the detected encoding {name.removeprefix('encoding ')}: {count:,}")
    return sentences


def value_remarks(outcome: Outcome, guessed: int, from_source: bool) -> list[str]:
    """Return remarks on values that were set by hand, or that the source no longer has, as sentences."""
    done = (
        "replaced by the source's" if from_source else f"kept ({option('labels_from_source', True)} takes the source's)"
    )
    sentences = [
        f"{name}: {counted(count, 'value')} set by hand, other than the source's: {done}"
        for name, count in outcome.conflicts.items()
        if count
    ]
    sentences += [
        f"{name}: {counted(count, 'value')} cleared, which the source no longer has"
        for name, count in outcome.cleared.items()
        if count
    ]
    if guessed:
        sentences.append(f"moved items whose values set by hand were matched by order, as contents repeat: {guessed:,}")
    return sentences


@dataclass(repr=False)
class EmbedSummary:
    """Counts and timings of an `embedpipe.embed` run: ``seen == embedded + reused + failed + others``.

    Attributes
    ----------
    seen : int
        Items of the source, including those that could not be listed.
    embedded : int
        Items embedded by this run.
    reused : int
        Items whose stored vector is still valid: unchanged, moved, renamed, or committed by another writer.
    failed : int
        Items that could not be embedded, which are in the failures table. ``failed_new`` of them were not in it before
        this run, and ``unreachable`` failed because a storage or server did not answer.
    failures : list of dict
        The first `FAILURES_SHOWN` failed items, the new ones first: ``id``, ``uri``, ``stage``, ``exception``,
        ``message`` and whether it is ``new``.
    others : int
        Items left to other processes (``shard``); 0 without shards.
    gone : int
        Rows of this source whose items no longer exist; ``pruned`` of them were dropped.
    skipped : dict
        Number of files left out because of their type, by suffix.
    conflicts : dict
        Number of values by column that were set by hand although the source has another. They were kept, or with
        ``labels_from_source`` replaced.
    counts : dict
        Counts of the preparation of pictures or texts; see `remarks`.
    seconds : float
        Wall time of the call, and on the command line from the start of the command. ``rate`` counts embedded items
        by the second without loading. ``stages`` has the seconds by stage, summed over threads.
    engine : str
        The engine that ran the network. ``engine_reason`` says why it was chosen.
    bottleneck : Bottleneck or None
        The slowest stage, with advice in ``advice``. None if nothing was embedded.
    """

    seen: int = 0
    embedded: int = 0
    reused: int = 0
    failed: int = 0
    failed_new: int = 0
    unreachable: int = 0
    others: int = 0
    gone: int = 0
    pruned: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    conflicts: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
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

    @property
    def cautions(self) -> list[str]:
        """What of the source is not in the store, and the notes of the run, as lines for people."""
        lines = []
        if self.failed:
            failed = f"{self.failed:,} of {self.seen:,} items failed: store.failures() has the reasons"
            first = f", the first: {self.failures[0]['message']}" if self.failures else ""
            lines.append(failed + first)
        if self.skipped:
            lines.append(f"left out: {', '.join(f'{count:,} {name}' for name, count in self.skipped.items())}")
        return [*lines, *self.notes]

    def exit_code(self, limit: FailureLimit | None = None) -> ExitCode:
        """Return what the command line returns after this run.

        ``TRY_AGAIN`` if a storage or server did not answer for an item; ``PARTLY_FAILED`` if more items failed, old and
        new, than the limit allows, and without a limit if items failed that had not failed before; else ``DONE``.
        """
        if self.unreachable:
            return ExitCode.TRY_AGAIN
        too_many = self.failed_new > 0 if limit is None else limit.is_exceeded(self.failed, self.seen)
        return ExitCode.PARTLY_FAILED if too_many else ExitCode.DONE

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)

    def without_failures(self) -> dict[str, Any]:
        """Return the same without the failed items."""
        return {name: value for name, value in asdict(self).items() if name != "failures"}


def failed_items(rows: pa.Table, failed: list[str], known: pa.ChunkedArray) -> list[dict[str, Any]]:
    """Return the first `FAILURES_SHOWN` failed items of a run, the new ones first.

    Parameters
    ----------
    rows : pyarrow.Table
        The failures table.
    failed : list of str
        Ids of the items that failed in this run.
    known : pyarrow.ChunkedArray
        Ids of the items that had failed before.
    """
    rows = rows.filter(pc.is_in(rows.column("id"), value_set=pa.array(failed, pa.string())))
    is_new = pc.invert(pc.is_in(rows.column("id"), value_set=known))
    rows = rows.select(["id", "uri", "stage", "exception", "message"]).append_column("new", is_new)
    rows = rows.sort_by([("new", "descending"), ("id", "ascending")]).slice(0, FAILURES_SHOWN)
    shown: list[dict[str, Any]] = rows.to_pylist()
    return shown
