"""`embed`: from a source to a feature store, which is the main job of embedpipe."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.config import usable_cores
from embedpipe._utils.device import choose_device
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones import load_with_options, resolve_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import BackboneOptions
from embedpipe.embedding.bottleneck import find_bottleneck
from embedpipe.embedding.gains import find_gains
from embedpipe.embedding.hash_index import HashIndex
from embedpipe.embedding.loop import Forwarder, embed_rows
from embedpipe.embedding.options import RunOptions, Shard
from embedpipe.embedding.plan import PART_ROWS, EmbedPlan, gone_from, make_plan, take_near
from embedpipe.embedding.summary import EmbedSummary, StageTimer, remarks
from embedpipe.embedding.writer import Embedded, Reused, RowWriter
from embedpipe.errors import PruneRefusedError, StoreError, UsageError
from embedpipe.sources.listing import Listing
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import EmbedParameters

OPTIONS = (SourceOptions, BackboneOptions, RunOptions)


@takes_options(*OPTIONS)
def embed(
    source: Any,
    to: str | Path,
    *,
    progress: bool | None = None,
    verbose: bool = False,
    **options: Unpack[EmbedParameters],
) -> FeatureStore:
    """Embed every item of a source into a feature store; items that are there already are not embedded again.

    Parameters
    ----------
    source : str, path-like or in-memory data
        A folder, file list, table, tar shards (or a URL of one), or a sequence of paths, PIL images,
        arrays or texts; see `embedpipe.sources.open_source`.
    to : str or path-like
        The store's folder or URL; made if it is not there.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    verbose : bool
        Show in it where the time goes.
    **options
        Fields of `SourceOptions`, `BackboneOptions` and `RunOptions`: ``backbone="timm/resnet50"``,
        ``layer=("layer3",)``, ``label="category"``, ``batch_size=64``, ``prune=True``... What is embedded,
        images or texts, is what the backbone takes; ``text="body"`` or ``modality="text"`` choose the default one of
        texts.

    Returns
    -------
    FeatureStore
        With what the run did in ``summary``. Items that failed are in ``failures()``; they are tried
        again by the next run.

    Raises
    ------
    EmbedpipeError
        If the source cannot be listed, the backbone cannot be loaded, or the store is another spec's.
        A ``KeyboardInterrupt`` commits what is done before it goes on.

    Examples
    --------
    >>> store = embedpipe.embed("photos/", to="photos.features")  # doctest: +SKIP
    >>> X, y = store.to_numpy(label="label")  # doctest: +SKIP
    """
    source_options, backbone_options, run_options = build_options(OPTIONS, options)
    show = Progress(progress, detail=verbose)
    if source_options.text is not None and backbone_options.modality is None:
        backbone_options = dataclasses.replace(backbone_options, modality="text")
    backbone_options = resolve_options(backbone_options)
    listing = open_source(source, source_options, backbone_options.modality or "image")
    device, reason = choose_device(run_options.device)
    if backbone_options.precision == "int8":
        if run_options.engine != "auto":
            raise UsageError(f"engine={run_options.engine!r} has no int8: leave it out, or take another precision")
        show.say("int8: a network that is new here is quantised first, which takes about half a minute, once")
    backbone = load_with_options(backbone_options, device)
    show.say(f"device: {reason}")
    store = FeatureStore.create(to, backbone.spec, compress=run_options.compress)
    store.summary = embed_listing(listing, store, backbone, run_options, show)
    store.summary.device_reason = reason
    return store


def embed_listing(
    listing: Listing, store: FeatureStore, backbone: Backbone, options: RunOptions, progress: Progress
) -> EmbedSummary:
    """Bring a store up to date with a listing. Raises StoreError if an item was neither embedded, reused nor failed."""
    start = time.perf_counter()
    timer = StageTimer()
    with timer("plan"):
        plan = make_plan(listing, store.refresh(), options.checksum)
        index = HashIndex(_contents(store) if len(plan.read) else ())
    pruning = options.prune and _may_prune(listing, plan, options.force)
    shard = Shard.parse(options.shard)
    plan, others = _share(listing, plan, shard)

    threads = options.threads or usable_cores()
    if options.engine == "auto" and len(plan.read):
        with timer("engine"):
            backbone = backbone.accelerated(len(plan.read))
        progress.say(
            f"engine: {backbone.engine_name}" + (f" ({backbone.engine_reason})" if backbone.engine_reason else "")
        )
    forward = Forwarder(backbone, options.batch_size, timer)
    note = {"embedpipe.run": _provenance(listing, backbone)}
    writer = RowWriter(store, listing, note, timer)
    begin = time.perf_counter()
    try:
        for failure in listing.failures if shard.number == 1 else ():
            writer.put(failure)

        def now() -> str:
            found = find_bottleneck(timer.seconds, time.perf_counter() - begin, forward.done, threads)
            return str(found) if found else ""

        with progress.step("embedding", len(plan.read) + len(plan.update), detail=now) as advance:
            for row, id, digest in _update_rows(listing, plan, store):
                writer.put(Reused(row, digest, id))
                advance()
            messages = embed_rows(listing, plan.read, forward, index, threads, timer)
            with contextlib.closing(messages):
                for message in messages:
                    with timer("stall"):
                        writer.put(message)
                    advance(len(message.rows) if isinstance(message, Embedded) else 1)
        wall = time.perf_counter() - begin
    finally:
        writer.close()

    summary = EmbedSummary(
        seen=len(listing) + len(listing.failures),
        others=others + (0 if shard.number == 1 else len(listing.failures)),
        embedded=writer.embedded,
        reused=writer.reused + plan.unchanged,
        failed=len(writer.failed_ids),
        gone=len(plan.gone),
        skipped=dict(listing.skipped),
        counts=dict(writer.counts),
        device=str(backbone.device),
        engine=backbone.engine_name,
        engine_reason=backbone.engine_reason,
        batch_size=forward.batch_size,
        store=store.path,
    )
    summary.notes += [*listing.notes, *remarks(writer.counts)]
    if summary.seen != summary.embedded + summary.reused + summary.failed + summary.others:
        raise StoreError(f"rows were lost: {summary}; please report this")
    _settle_failures(listing, store, writer.failed_ids, shard)
    if plan.moved_from:
        summary.notes.append(f"the source has moved here from {plan.moved_from}")
    if pruning and plan.gone:
        summary.pruned = store.remove(plan.gone).removed
    elif options.prune and plan.gone:
        summary.notes.append("nothing was pruned, because part of the source could not be listed")
    summary.version = store.refresh().version
    summary.seconds = time.perf_counter() - start
    summary.rate = summary.embedded / summary.seconds
    summary.stages = timer.seconds
    if (found := find_bottleneck(timer.seconds, wall, forward.done, threads)) is not None:
        summary.bottleneck, summary.advice = found, found.advice(backbone.spec, backbone.device.type)
        if options.engine == "auto":
            summary.notes += find_gains(backbone, listing, plan.read, found, wall, store.path)
    if (looking := timer.seconds.get("engine", 0.0)) > 1:
        summary.notes.append(f"finding the engine took {looking:.1f} s of it; a later run of this backbone takes less")
    return summary


def _share(listing: Listing, plan: EmbedPlan, shard: Shard) -> tuple[EmbedPlan, int]:
    """Return a plan with this shard's items only, and how many are left to other processes."""
    if shard.total == 1:
        return plan, 0
    mine = [rows[shard.marks(listing.table.column("id").take(pa.array(rows)))] for rows in (plan.read, plan.update)]
    others = len(plan.read) + len(plan.update) - sum(map(len, mine))
    return dataclasses.replace(plan, read=mine[0], update=mine[1]), others


def _contents(store: FeatureStore) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield content hashes and ids of a store, file by file."""
    for file in store.table.files:
        rows = store.table.read_file(file, ["content_hash", "id"])
        yield rows.column("content_hash"), rows.column("id")


def _update_rows(listing: Listing, plan: EmbedPlan, store: FeatureStore) -> Iterator[tuple[int, str, str]]:
    """Yield row, id and content hash of items whose bytes are unchanged but whose metadata is not."""
    for start in range(0, len(plan.update), PART_ROWS):
        rows = plan.update[start : start + PART_ROWS]
        ids = take_near(listing.table.select(["id"]), rows).column("id")
        stored = store.table.rows(ids.combine_chunks(), ["id", "content_hash"])
        hashes = dict(zip(stored["id"].to_pylist(), stored["content_hash"].to_pylist(), strict=True))
        for row, id in zip(rows.tolist(), ids.to_pylist(), strict=True):
            yield row, id, hashes[id]


def _settle_failures(listing: Listing, store: FeatureStore, failed: list[str], shard: Shard) -> None:
    """Drop failures that are history: of items that did not fail again, and of those that are gone."""
    rows = store.failures()
    if not len(rows):
        return
    repaired = pc.is_in(rows.column("id"), value_set=listing.table.column("id"))
    gone = pc.and_(pc.equal(rows.column("source_root"), listing.root), gone_from(listing, rows))
    again = pc.is_in(rows.column("id"), value_set=pa.array(failed, pa.string()))
    mine = pa.array(shard.marks(rows.column("id")))
    settled = pc.and_(pc.or_(pc.and_(repaired, mine), gone), pc.invert(again))
    store.failures_table.drop(rows.column("id").filter(settled).combine_chunks())


def _may_prune(listing: Listing, plan: EmbedPlan, force: bool) -> bool:
    """Say whether pruning is safe. Raises PruneRefusedError where it would drop more than half of the rows."""
    if len(plan.gone) > plan.rows_of_root / 2 and not force:
        raise PruneRefusedError(
            f"pruning would drop {len(plan.gone):,} of the {plan.rows_of_root:,} rows of {listing.root!r}: "
            "is the folder mounted and whole? If so, pass --force (force=True)"
        )
    return not any(failure.stage == "list" for failure in listing.failures)


def _provenance(listing: Listing, backbone: Backbone) -> str:
    return json.dumps(
        {
            "embedpipe": __version__,
            "python": platform.python_version(),
            "source": listing.root,
            "device": str(backbone.device),
            **backbone.provenance,
        }
    )
