"""Cells of a benchmark: trained where they are missing, read where they are finished."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import cached_property

from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.cell_files import FinishedCell, RunFolder
from embedpipe.finetuning.benchmark.label_sampling import draw_labels
from embedpipe.finetuning.benchmark.learners import CellTrainer
from embedpipe.finetuning.benchmark.result import Learner
from embedpipe.finetuning.benchmark.shifted_images import CLEAN, corrupted, decoded
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.source import load_frozen, open_image_set
from embedpipe.finetuning.split_rows import SHIFTED, SplitRows, network_layer
from embedpipe.finetuning.training.images import Rows
from embedpipe.heads.training_data import read_finite
from embedpipe.store import FeatureStore

#: Pictures whose embedding is timed.
TIMED = 64


@dataclasses.dataclass
class CellRunner:
    """Trains cells, or reads those that are finished; a network is loaded if there is one to train."""

    store: FeatureStore
    split: SplitRows
    pool: Rows
    kinds: list[tuple[str, int]]
    options: FineTuneOptions
    reload: ReloadOptions
    device: str | None
    folder: RunFolder
    progress: Progress

    def cells(self, budgets: Sequence[int], seeds: Sequence[int], learners: Sequence[Learner]) -> list[FinishedCell]:
        """Return all cells of these."""
        grid = [(learner, labels, seed) for seed in seeds for labels in budgets for learner in learners]
        found = [self.folder.read(*place) for place in grid]
        missing = [place for place, one in zip(grid, found, strict=True) if one is None]
        if missing or not {"device", "embedding", CLEAN} <= self.folder.facts.keys():
            _ = self.trainer
        with self.progress.step("training", len(missing), "cells") as advance:
            for place in missing:
                self.train(*place)
                advance(1)
        return [one for place in grid if (one := self.folder.read(*place)) is not None]

    def train(self, learner: Learner, labels: int, seed: int) -> None:
        """Train and measure a cell, and keep it."""
        draw = draw_labels(self.split.y, self.split.splits.groups, self.pool, labels, seed)
        found = self.trainer.learn(learner, draw)
        self.folder.write(found)
        self.progress.say(
            f"{learner}, {labels:,} labels, seed {seed}: {found.cell.accuracy:.2%} of the test rows, "
            f"{found.cell.seconds:,.1f} s"
        )

    @cached_property
    def trainer(self) -> CellTrainer:
        """The network and the test pictures, made ready once."""
        begin = time.perf_counter()
        split, folder = self.split, self.folder
        layer = network_layer(self.store)
        frozen = load_frozen(self.store.spec.only(layer.name), self.reload, self.device)
        images, ids = open_image_set(split, frozen), split.ids.to_pylist()
        reading = time.perf_counter()
        views = [decoded(images, split.test, CLEAN, folder.pixels, self.progress)]
        per_picture = (time.perf_counter() - reading) / max(len(split.test), 1)
        if len(split.shifted):
            views.append(decoded(images, split.shifted, SHIFTED, folder.pixels, self.progress))
        for view, rows in zip(views, (split.test, split.shifted), strict=False):
            left_out = {ids[row]: images.failed[row].message for row in rows.tolist() if row in images.failed}
            self._check_same(view.name, left_out)
        views += corrupted(views[0], self.kinds, ids, self.progress)
        part = next(views[0].parts())[:TIMED]
        frozen.forward(part)  # what is set up once is not counted
        forward = time.perf_counter()
        frozen.forward(part)
        per_picture += (time.perf_counter() - forward) / len(part)
        X = read_finite(self.store, [layer], split.ids)
        first = {"device": str(frozen.device), "embedding": per_picture, "setup": time.perf_counter() - begin}
        folder.note(**{**first, **folder.facts})
        return CellTrainer(split, X, frozen, self.options, self.reload, views, folder.facts["embedding"], folder)

    def _check_same(self, name: str, left_out: dict[str, str]) -> None:
        """Keep which pictures were left out; raise UsageError if finished cells were measured on others."""
        before = self.folder.facts.get(name)
        if before is None:
            self.folder.note(**{name: left_out})
        elif before.keys() != left_out.keys():
            changed = sorted(before.keys() ^ left_out.keys())
            raise UsageError(
                f"{len(changed)} {name} pictures, such as {changed[0]!r}, can be read now and could not before, or the "
                f"other way round: restore them, or name another folder (--to)"
            )
