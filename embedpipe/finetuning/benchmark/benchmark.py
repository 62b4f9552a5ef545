"""`benchmark`: learning curves of a probe and of networks that are fine-tuned or trained from scratch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import UsageError, nearest
from embedpipe.finetuning.benchmark.cell_files import FinishedCell, RunFolder
from embedpipe.finetuning.benchmark.cell_runner import CellRunner
from embedpipe.finetuning.benchmark.differences import find_differences, find_savings
from embedpipe.finetuning.benchmark.label_sampling import check_label_counts
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.benchmark.result import LEARNERS, Benchmark, Learner
from embedpipe.finetuning.benchmark.shifted_images import CLEAN, kinds_of_shift
from embedpipe.finetuning.benchmark.time_budget import plan_label_counts
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.run_folder import lock_folder
from embedpipe.finetuning.source import open_images
from embedpipe.finetuning.split_rows import SHIFTED, SplitRows, read_split_rows
from embedpipe.finetuning.training.launcher import require_one_process
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import BenchmarkParameters

OPTIONS = (BenchmarkOptions, FineTuneOptions, SplitOptions, ReloadOptions)


@takes_options(*OPTIONS)
def benchmark(
    source: FeatureStore | str | Path,
    *,
    to: str | Path,
    label: str = "label",
    backbone: str = "",
    learners: Sequence[Learner] = LEARNERS,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[BenchmarkParameters],
) -> Benchmark:
    """Measure what labels, pretraining and fine-tuning are worth: learning curves of up to four learners.

    Each cell is one learner on one draw of labels, measured on the same test rows, as they are and shifted. Draws are
    nested: each is the beginning of every larger one of its seed, with the classes even, and all learners of a budget
    and a seed learn from the same rows. A probe takes them all; networks train on four fifths and stop by the rest.
    A run that is killed goes on where it was; more budgets, seeds or learners can be added to one that is finished.

    Parameters
    ----------
    source : FeatureStore or path
        A store of images with labels, whose files are read again; or the images, as `embedpipe.embed` takes them, which
        are embedded into ``features`` in the run's folder first. Rows whose ``split`` is ``shifted`` are the user's own
        shifted test data, and are measured in place of corruptions.
    to : str or path-like
        A new or empty folder, or that of an earlier run of the same.
    label : str
        The column to learn.
    backbone : str
        What embeds images that are in no store yet.
    learners : sequence of str
        ``probe``: a calibrated logistic regression on stored vectors. ``hand-off``: a network that begins with that
        head, fitted on its own training rows. ``plain``: one with a random last layer, which learns ten times as fast.
        ``scratch``: one with random weights throughout, ten times the learning rate, and batch-norms that follow the
        batches.
    device : str, optional
        Where to train; the fastest usable device by default.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    **options
        Fields of `BenchmarkOptions`, `FineTuneOptions`, `SplitOptions` and `ReloadOptions`.

    Returns
    -------
    Benchmark

    Raises
    ------
    UsageError
        If an argument is wrong, or the folder is of another run.
    TrainingDataError
        If there is too little to learn from, or pictures cannot be read.
    BackboneError
        If the network cannot be loaded or trained.

    Examples
    --------
    >>> embedpipe.benchmark("photos.features", to="photos.benchmark", time_budget="2h")  # doctest: +SKIP
    """
    chosen, training, split_options, reload_options = build_options(OPTIONS, options)
    require_one_process("benchmark")
    wanted = _checked(learners)
    kinds = kinds_of_shift(chosen)
    folder = RunFolder(to)
    with lock_folder(folder.path):
        store, label = open_images(source, folder.features, label, backbone, device, progress, reload_options)
        split = read_split_rows(store, label, split_options)
        pool = np.sort(np.concatenate([split.train, split.validation]))
        check_label_counts(chosen.label_counts, split.y, pool)
        kinds = [] if len(split.shifted) else kinds
        folder.claim(_key(store, split, kinds, training))
        run = CellRunner(store, split, pool, kinds, training, reload_options, device, folder, Progress(progress))
        budgets, seeds, notes = plan_label_counts(run, chosen, wanted)
        cells = run.cells(budgets, seeds, wanted)
        folder.clear()
        found = Benchmark(
            data=store.path,
            backbone=f"{store.spec.provider}/{store.spec.name}",
            label=label,
            device=folder.facts["device"],
            classes=split.classes.tolist(),
            label_counts=budgets,
            seeds=seeds,
            learners=wanted,
            test_rows=len(split.test) - len(folder.facts[CLEAN]),
            severities=list(chosen.severities) if kinds else [],
            cells=[one.cell for one in cells],
            differences=[],
            savings=[],
            splits_id=split.splits.identity,
            notes=[*split.splits.notes, *notes, *_failures(folder, cells)],
            seconds=sum(one.cell.seconds + one.measuring for one in cells),
            majority_accuracy=float(np.bincount(split.y[split.test]).max() / len(split.test)),
        )
        return dataclasses.replace(found, differences=find_differences(found), savings=find_savings(found))


def _checked(learners: Sequence[Learner]) -> list[Learner]:
    """Return the learners in their usual order."""
    given = [learners] if isinstance(learners, str) else list(learners)
    for one in given:
        if one not in LEARNERS:
            raise UsageError(f"there is no learner {one!r}{nearest(one, LEARNERS)}: {', '.join(LEARNERS)}")
    if not given:
        raise UsageError(f"there is no learner to benchmark: give some of {', '.join(LEARNERS)}")
    return [one for one in LEARNERS if one in given]


def _key(store: FeatureStore, split: SplitRows, kinds: list[tuple[str, int]], options: FineTuneOptions) -> str:
    """Return what makes a cell what it is, but for its learner, budget and seed: code, data, labels, split, options."""
    settings = {name: value for name, value in dataclasses.asdict(options).items() if name != "seed"}
    digest = hashlib.sha256(json.dumps([__version__, store.spec.fingerprint(), settings, kinds]).encode())
    digest.update(json.dumps([split.ids.to_pylist(), split.hashes, split.classes.tolist()]).encode())
    for values in (split.y, split.train, split.validation, split.test, split.shifted):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _failures(folder: RunFolder, cells: Sequence[FinishedCell]) -> list[str]:
    """Say which pictures were left out."""
    notes = []
    learned = {id: why for one in cells for id, why in one.failed.items()}
    for what, failed in (*((name, folder.facts.get(name, {})) for name in (CLEAN, SHIFTED)), ("training", learned)):
        if failed:
            id, why = next(iter(failed.items()))
            notes.append(f"{len(failed)} {what} pictures could not be read and were left out, such as {id!r}: {why}")
    return notes
