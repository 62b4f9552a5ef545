"""The cells of a benchmark: finished ones are read, missing ones are trained, as many as a time budget allows."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import cached_property

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.benchmark_data import Learner
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder, FinishedCell
from embedpipe.finetuning.benchmark.label_sampling import draw_labels, label_count_ladders
from embedpipe.finetuning.benchmark.learners import CellTrainer
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.benchmark.views import CLEAN, ImageView, corrupt_images, read_view
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.source import load_frozen, open_item_set
from embedpipe.finetuning.split_rows import SHIFTED, SplitRows, network_layer
from embedpipe.finetuning.training.items.batches import embed_batch
from embedpipe.finetuning.training.items.item_set import Rows
from embedpipe.heads.training.vectors import read_finite
from embedpipe.statistics.percentages import percent
from embedpipe.store import FeatureStore


@dataclasses.dataclass(frozen=True)
class CellSource:
    """What all cells are trained and measured on, and how.

    Parameters
    ----------
    store : FeatureStore
    split : SplitRows
    label : str
        Column of the classes.
    options : FineTuneOptions
    reload : ReloadOptions
    device : str, optional
    """

    store: FeatureStore
    split: SplitRows
    label: str
    options: FineTuneOptions
    reload: ReloadOptions
    device: str | None


@dataclasses.dataclass
class CellRunner:
    """Reads finished cells and trains missing ones. The network is loaded only if a cell is missing.

    Parameters
    ----------
    source : CellSource
    pool : int64 array
        Positions of the training and validation rows.
    corruptions : list of (str, int)
        Corruptions and severities.
    folder : BenchmarkFolder
    progress : Progress
    """

    source: CellSource
    pool: Rows
    corruptions: list[tuple[str, int]]
    folder: BenchmarkFolder
    progress: Progress

    def cells(
        self, label_counts: Sequence[int], seeds: Sequence[int], learners: Sequence[Learner]
    ) -> list[FinishedCell]:
        """Return the cells of all combinations; train those that are missing."""
        grid = [(learner, labels, seed) for seed in seeds for labels in label_counts for learner in learners]
        missing = [place for place in grid if self.folder.read(*place) is None]
        if missing or not {"device", "embedding", CLEAN} <= self.folder.facts.keys():
            _ = self.trainer
        with self.progress.step("training", len(missing), "cells") as advance:
            for place in missing:
                self._train(*place)
                advance(1)
        return [cell for place in grid if (cell := self.folder.read(*place)) is not None]

    def _train(self, learner: Learner, labels: int, seed: int) -> None:
        """Train and measure a cell, and save it."""
        draw = draw_labels(self.source.split.y, self.source.split.splits.groups, self.pool, labels, seed)
        finished = self.trainer.run(learner, draw)
        self.folder.write(finished)
        self.progress.say(
            f"{learner}, {labels:,} labels, seed {seed}: accuracy {percent(finished.cell.accuracy)}, "
            f"{finished.cell.seconds:,.1f} s"
        )

    @cached_property
    def trainer(self) -> CellTrainer:
        """The frozen network, its features and all versions of the test items."""
        start = time.perf_counter()
        source, split, folder = self.source, self.source.split, self.folder
        layer = network_layer(source.store)
        with self.progress.step("loading the network"):
            frozen = load_frozen(source.store.spec.only(layer.name), source.reload, source.device)
        items, ids = open_item_set(split, frozen), split.ids.to_pylist()
        start_reading = time.perf_counter()
        views = [read_view(items, split.test, CLEAN, folder.pixels, self.progress)]
        item_seconds = (time.perf_counter() - start_reading) / max(len(split.test), 1)
        if len(split.shifted):
            views.append(read_view(items, split.shifted, SHIFTED, folder.pixels, self.progress))
        for view, rows in zip(views, (split.test, split.shifted), strict=False):
            left_out = {ids[row]: items.failed[row].message for row in rows.tolist() if row in items.failed}
            self._check_left_out(view.name, left_out, items.noun)
        if isinstance(views[0], ImageView):
            views += corrupt_images(views[0], self.corruptions, ids, self.progress)
        part = next(views[0].parts())
        embed_batch(frozen, part)  # the first call includes initialisation
        start_forward = time.perf_counter()
        embed_batch(frozen, part)
        item_seconds += (time.perf_counter() - start_forward) / len(part)
        X = read_finite(source.store, [layer], split.ids)
        facts = {"device": str(frozen.device), "embedding": item_seconds, "setup": time.perf_counter() - start}
        folder.note(**{**facts, **folder.facts})
        return CellTrainer(split, X, frozen, source.options, source.reload, views, folder.facts["embedding"], folder)

    def _check_left_out(self, name: str, left_out: dict[str, str], noun: str) -> None:
        """Note which items were left out; raise UsageError if finished cells were measured on other items."""
        before = self.folder.facts.get(name)
        if before is None:
            self.folder.note(**{name: left_out})
        elif before.keys() != left_out.keys():
            changed = sorted(before.keys() ^ left_out.keys())
            raise UsageError(
                f"all cells must be measured on the same {name} {noun}, and {len(changed)} of them, such as "
                f"{changed[0]!r}, became readable or unreadable since the first cell: restore them, or give another "
                f"folder ({option('to', ...)})"
            )


def fit_into_time_budget(
    runner: CellRunner, options: BenchmarkOptions, learners: Sequence[Learner]
) -> tuple[list[int], list[int], list[str]]:
    """Return label counts and seeds that fit into the time budget, and a note if some were left out.

    The first cell of a network, at the smallest label count, gives the time for each label; the time of linear probes
    is neglected. If the smallest label count alone does not fit, seeds are left out, down to one.
    """
    ladders = list(label_count_ladders(options.label_counts, runner.source.split.y, runner.pool))
    seeds = [runner.source.options.seed + number for number in range(options.seeds)]
    networks = [learner for learner in learners if learner != "linear-probe"]
    budget = options.budget_seconds
    if budget is None or not networks:
        return ladders[0], seeds, []
    smallest, epochs = ladders[0][0], runner.source.options.epochs
    (timed,) = runner.cells([smallest], seeds[:1], networks[:1])
    seconds_per_label = timed.cell.seconds / (smallest * len(timed.cell.epochs)) * (epochs + 1)

    def seed_seconds(counts: Sequence[int]) -> float:
        return len(networks) * sum(seconds_per_label * count + timed.measuring for count in counts)

    # The linear probe needs one pass over the corrupted images.
    once = runner.folder.facts["setup"] + ("linear-probe" in learners) * timed.measuring
    left = budget - once
    counts = next((ladder for ladder in ladders if len(seeds) * seed_seconds(ladder) <= left), ladders[-1])
    kept = seeds[: max(1, min(len(seeds), int(left / seed_seconds(counts))))]
    if counts == ladders[0] and kept == seeds:
        return counts, kept, []
    speed = smallest * len(timed.cell.epochs) / timed.cell.seconds
    full_minutes = (len(seeds) * seed_seconds(ladders[0]) + once) / 60
    return (
        counts,
        kept,
        [
            f"label counts reduced to {_listed(counts)} and seeds to {len(kept)}, to fit into {options.time_budget}: "
            f"{_listed(ladders[0])} with {len(seeds)} seeds would take about {full_minutes:,.1f} minutes, at "
            f"{speed:,.0f} labels a second in each epoch and {timed.measuring:,.1f} s to measure a network"
        ],
    )


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(f"{count:,}" for count in counts)
