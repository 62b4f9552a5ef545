"""Updating a store from a listing: the plan, the loop, and the counts that must add up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones.options import BackboneOptions
from embedpipe.backbones.pending import PendingBackbone
from embedpipe.embedding.hash_index import Contents
from embedpipe.embedding.moves import Moves, set_by_hand
from embedpipe.embedding.options import RunOptions, Shard
from embedpipe.embedding.plan import EmbedPlan, gone_from, make_plan, still_broken, stored_parts
from embedpipe.embedding.runners.choice import advice, bottleneck_of, contention, faster_settings, make_runner
from embedpipe.embedding.runners.runner import Execution, Runner
from embedpipe.embedding.summary import EmbedSummary, StageTimer, failed_items, remarks, value_remarks
from embedpipe.embedding.writing.messages import Message, Reused, count_rows
from embedpipe.embedding.writing.writer import RowWriter
from embedpipe.errors import Failure, PruneRefusedError, StoreError
from embedpipe.sources.access.outage import OutageWatch
from embedpipe.sources.listing import Listing
from embedpipe.sources.reading import take_near
from embedpipe.store import FeatureStore
from embedpipe.store.id_index import are_among

if TYPE_CHECKING:
    from embedpipe.backbones.backbone import Backbone


def embed_listing(
    listing: Listing,
    store: FeatureStore,
    backbone: Backbone | PendingBackbone,
    options: RunOptions,
    progress: Progress,
    chosen: BackboneOptions | None = None,
) -> EmbedSummary:
    """Update a store from a listing. A pending backbone is loaded if something is to be embedded.

    ``chosen`` are the options of the backbone, by which workers on other machines load it.

    Raises StoreError if the counts of the summary do not add up, and SpecMismatchError if the backbone that loads is
    not the one of the store.
    """
    start = time.perf_counter()
    timer = StageTimer()
    with timer("plan"), progress.step("comparing the source with the store"):
        work = _plan(listing, store.refresh(), options)
    rows = work.plan.read
    runner: Runner | None = None
    broken: list[Failure] | None = None
    if len(rows) and isinstance(backbone, PendingBackbone):
        broken = still_broken(listing, rows, work.failed_before, backbone.spec.preprocessing)
    if len(rows) and broken is None:
        runner = make_runner(backbone, chosen, store, len(listing), options, timer, progress)

    def execution() -> Execution:
        return Execution.of(backbone) if runner is None else runner.execution

    def note() -> dict[str, str]:
        return {"embedpipe.run": _provenance(listing, execution())}

    writer = RowWriter(store, listing, work.plan.values, note, timer, labels_from_source=options.labels_from_source)
    begin, used = time.perf_counter(), time.process_time()
    try:
        unreachable = _execute(listing, store, work, runner, broken or [], writer, timer, progress)
        wall, processor = time.perf_counter() - begin, time.process_time() - used
    finally:
        writer.close()
    summary = _settle(listing, store, work, writer, options)
    summary.unreachable = unreachable
    ran = execution()
    summary.device, summary.engine, summary.engine_reason = ran.device, ran.engine, ran.engine_reason
    summary.batch_size = ran.batch_size
    summary.notes = [*backbone.notes, *summary.notes]
    summary.seconds = time.perf_counter() - start
    summary.rate = summary.embedded / summary.seconds
    summary.stages = timer.seconds
    if (bottleneck := bottleneck_of(runner, timer, wall)) is not None:
        summary.bottleneck, summary.advice = bottleneck, advice(runner, bottleneck, store.spec)
        summary.notes += contention(runner, bottleneck, processor, wall)
        summary.notes += faster_settings(runner, listing, rows, bottleneck, wall, store.path)
    if (choosing := timer.seconds.get("engine", 0.0)) > 1:
        summary.notes.append(f"choosing the engine took {choosing:.1f} s; later runs of this backbone take less")
    return summary


@dataclasses.dataclass(frozen=True)
class _Work:
    """What this process does in a run: the plan of its shard, and what decides about its rows."""

    plan: EmbedPlan
    shard: Shard
    others: int  # items left to other processes
    contents: Contents
    moves: Moves
    failed_before: pa.ChunkedArray
    prune: bool


def _plan(listing: Listing, store: FeatureStore, options: RunOptions) -> _Work:
    """Compare the listing with the store. Raises PruneRefusedError if pruning would drop more than half of the rows."""
    failed_before = store.failures().column("id")
    plan = make_plan(listing, store, options.checksum, options.labels_from_source)
    contents = Contents(_contents(store) if len(plan.read) else (), listing.table.column("id"), plan.index)
    by_hand = set_by_hand(store, listing.root) if len(plan.read) else ()
    moves = Moves(listing, contents, plan.index, plan.gone, by_hand)
    prune = options.prune and _may_prune(listing, plan, options.force)
    shard = Shard.parse(options.shard)
    plan, others = _share(listing, plan, shard)
    return _Work(plan, shard, others, contents, moves, failed_before, prune)


def _execute(
    listing: Listing,
    store: FeatureStore,
    work: _Work,
    runner: Runner | None,
    broken: list[Failure],
    writer: RowWriter,
    timer: StageTimer,
    progress: Progress,
) -> int:
    """Send all rows of the plan to the writer; return how many failed because a storage or server did not answer.

    ``broken`` are items that failed before and have not changed, where nothing else is new.
    """
    plan, watch, begin = work.plan, OutageWatch(), time.perf_counter()
    for failure in listing.failures if work.shard.number == 1 else ():
        watch(failure)
        progress.event("item_failed", **dataclasses.asdict(failure))
        writer.put(failure)

    def detail() -> str:
        bottleneck = bottleneck_of(runner, timer, time.perf_counter() - begin)
        return str(bottleneck) if bottleneck else ""

    with progress.step("embedding", len(plan.read) + len(plan.update), detail=detail) as advance:
        for row, id, digest in _update_rows(listing, plan, store):
            writer.put(Reused(row, digest, id))
            advance()
        messages = _messages(listing, plan, runner, broken, work.contents)
        with contextlib.closing(messages):
            for message in messages:
                watch(message)
                if isinstance(message, Failure):
                    progress.event("item_failed", **dataclasses.asdict(message))
                with timer("stall"):
                    for routed in work.moves.route(message):
                        writer.put(routed)
                advance(count_rows(message))
        for message in work.moves.finish():
            writer.put(message)
    return watch.count


def _settle(listing: Listing, store: FeatureStore, work: _Work, writer: RowWriter, options: RunOptions) -> EmbedSummary:
    """Check the counts, drop resolved failures and rows to be pruned; return the counts."""
    plan, failed = work.plan, writer.failed_ids
    unlisted = 0 if work.shard.number == 1 else len(listing.failures)
    summary = EmbedSummary(
        seen=len(listing) + len(listing.failures),
        others=work.others + unlisted,
        embedded=writer.embedded,
        reused=writer.reused + plan.unchanged,
        failed=len(failed),
        failed_new=len(set(failed).difference(work.failed_before.to_pylist())),
        failures=failed_items(store.failures(), failed, work.failed_before) if failed else [],
        gone=len(plan.gone),
        skipped=dict(listing.skipped),
        counts=dict(writer.counts),
        store=store.path,
    )
    if summary.seen != summary.embedded + summary.reused + summary.failed + summary.others:
        raise StoreError(f"embedded, reused, failed and other items do not add up in {summary}: please report this")
    writer.outcome.conflicts.update(plan.conflicts)
    summary.conflicts = dict(+writer.outcome.conflicts)
    summary.notes = [*listing.notes, *remarks(writer.counts)]
    summary.notes += value_remarks(writer.outcome, work.moves.guessed, options.labels_from_source)
    _drop_old_failures(listing, store, failed, work.shard)
    if plan.moved_from:
        summary.notes.append(f"the source has moved from {plan.moved_from}")
    if work.prune and plan.gone:
        summary.pruned = store.remove(plan.gone).removed
    elif options.prune and plan.gone:
        summary.notes.append("nothing was pruned, as part of the source could not be listed")
    summary.version = store.refresh().version
    return summary


def _messages(
    listing: Listing, plan: EmbedPlan, runner: Runner | None, broken: list[Failure], contents: Contents
) -> Generator[Message, None, None]:
    if runner is not None:
        yield from runner.messages(listing, plan, contents)
    yield from broken


def _share(listing: Listing, plan: EmbedPlan, shard: Shard) -> tuple[EmbedPlan, int]:
    """Return the plan of this shard, and the number of items left to other processes."""
    if shard.total == 1:
        return plan, 0
    ids = listing.table.column("id")
    parts = [rows[shard.marks(take_near(ids, rows))] for rows in (plan.read, plan.update)]
    others = len(plan.read) + len(plan.update) - sum(map(len, parts))
    new = len(np.intersect1d(plan.read[: plan.new], parts[0]))
    return dataclasses.replace(plan, read=parts[0], new=new, update=parts[1]), others


def _contents(store: FeatureStore) -> Iterator[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    """Yield the content hashes and ids of a store, part by part."""
    for rows in stored_parts(store, ["content_hash", "id"]):
        yield rows.column("content_hash"), rows.column("id")


def _update_rows(listing: Listing, plan: EmbedPlan, store: FeatureStore) -> Iterator[tuple[int, str, str]]:
    """Yield row, id and content hash of items with unchanged bytes and changed metadata, part by part."""
    wanted = np.zeros(len(listing) + 1, bool)  # the last is for -1, the row of unknown ids
    wanted[plan.update] = True
    for hashes, ids in _contents(store) if len(plan.update) else ():
        rows = plan.index.find(ids)
        at = np.flatnonzero(wanted[rows])
        taken = (column.take(pa.array(at)).to_pylist() for column in (ids, hashes))
        yield from zip(rows[at].tolist(), *taken, strict=True)


def _drop_old_failures(listing: Listing, store: FeatureStore, failed: list[str], shard: Shard) -> None:
    """Drop failures of items that did not fail again or are gone."""
    rows = store.failures()
    if not len(rows):
        return
    repaired = are_among(rows.column("id"), listing.table.column("id"))
    gone = pc.and_(pc.equal(rows.column("source_root"), listing.root), gone_from(listing, rows))
    failed_again = pc.is_in(rows.column("id"), value_set=pa.array(failed, pa.string()))
    in_shard = pa.array(shard.marks(rows.column("id")))
    resolved = pc.and_(pc.or_(pc.and_(repaired, in_shard), gone), pc.invert(failed_again))
    store.failures_table.drop(rows.column("id").filter(resolved).combine_chunks())


def _may_prune(listing: Listing, plan: EmbedPlan, force: bool) -> bool:
    """Return whether pruning is safe. Raises PruneRefusedError if it would drop more than half of the rows."""
    if len(plan.gone) > plan.rows_of_root / 2 and not force:
        raise PruneRefusedError(
            f"pruning would drop {len(plan.gone):,} of the {plan.rows_of_root:,} rows of {listing.root!r}: "
            f"check that the folder is mounted and complete, then pass {option('force', True)}"
        )
    return not any(failure.stage == "list" for failure in listing.failures)


def _provenance(listing: Listing, ran: Execution) -> str:
    return json.dumps(
        {
            "embedpipe": __version__,
            "python": platform.python_version(),
            "source": listing.root,
            "device": ran.device,
            **ran.provenance,
        }
    )
