"""`benchmark`: learning curves of a linear probe, fine-tuned networks and a network from scratch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe._utils.version import __version__
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import UsageError, suggest
from embedpipe.finetuning.benchmark.benchmark_data import ALL_LEARNERS, LEARNERS, Learner
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder, FinishedCell
from embedpipe.finetuning.benchmark.cell_runner import CellRunner, CellSource, fit_into_time_budget
from embedpipe.finetuning.benchmark.differences import find_differences, find_savings
from embedpipe.finetuning.benchmark.label_sampling import check_label_counts
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.benchmark.views import CLEAN, corruption_grid
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.run_folder import lock_folder
from embedpipe.finetuning.run_settings import run_settings
from embedpipe.finetuning.source import open_items, reload_named
from embedpipe.finetuning.split_rows import SHIFTED, SplitRows, network_layer, read_split_rows
from embedpipe.finetuning.training.contrastive import require_contrastive
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
    """Measure the value of labels, pretraining and fine-tuning: learning curves of several learners.

    Each cell is one learner on one draw of labels. All cells are measured on the same test rows, uncorrupted and
    corrupted. Draws are nested, each a subset of every larger draw with its seed, and stratified by class. All learners
    with the same number of labels and seed learn from the same rows: the linear probe from all of them, networks from
    four fifths, with the rest for early stopping. The same call continues a run that was interrupted. Label counts,
    seeds and learners can be added to a finished run.

    Parameters
    ----------
    source : FeatureStore or path
        A store of labelled images or texts, which are read again. Or the path of images or texts, as `embedpipe.embed`
        takes it: they are embedded into ``features`` in ``to`` first. Rows whose ``split`` is ``shifted`` are shifted
        test data of your own; they replace the corruptions. Texts are not corrupted.
    to : str or path-like
        Folder of the run: new, empty or that of an earlier run to continue.
    label : str
        The column to learn.
    backbone : str
        Backbone for images or texts that are not in a store yet.
    learners : sequence of str
        ``linear-probe``: calibrated logistic regression on stored features. ``lp-ft``: a network that starts from a
        linear probe of its training rows (LP-FT). ``finetune``: a network that starts from a random last layer, with
        ten times the learning rate there. ``scratch``: a network with random weights, ten times the learning rate, and
        batch-norm statistics of the batches. ``contrastive``, for ``sentence-transformers/`` only and not measured by
        default: texts of a class are brought together, then a head is fitted on the new vectors.
    device : str, optional
        Where to train; by default the fastest usable device.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Benchmark

    Raises
    ------
    UsageError
        If an argument is wrong, or the folder holds another run.
    TrainingDataError
        If there are too few labelled rows, or items cannot be read.
    BackboneError
        If the network cannot be loaded or trained.

    Examples
    --------
    >>> result = embedpipe.benchmark("photos.features", to="photos.benchmark", time_budget="2h")  # doctest: +SKIP
    >>> [(d.labels, d.accuracy) for d in result.differences if d.reference == "linear-probe"]  # doctest: +SKIP
    >>> result.to_html("benchmark.html")  # doctest: +SKIP
    PosixPath('benchmark.html')
    """
    benchmark_options, training, split_options, reload_options = build_options(OPTIONS, options)
    require_one_process("benchmark")
    learners = _check_learners(learners)
    corruption_grid(benchmark_options)  # refuses an unknown name before anything is read
    folder, show = BenchmarkFolder(to), Progress(progress)
    with lock_folder(folder.path):
        store, label = open_items(source, folder.features, label, backbone, device, progress, reload_options)
        if "contrastive" in learners:
            require_contrastive(store.spec.only(network_layer(store).name), training, repr(store.path))
        with show.step("reading rows and splitting them"):
            split = read_split_rows(store, label, split_options)
        cells = CellSource(store, split, label, training, reload_named(backbone, reload_options), device)
        return measure_cells(cells, folder, learners, benchmark_options, show)


def measure_cells(
    source: CellSource,
    folder: BenchmarkFolder,
    learners: Sequence[Learner],
    benchmark_options: BenchmarkOptions,
    progress: Progress,
) -> Benchmark:
    """Measure the cells of `benchmark` on given rows. The caller holds the lock of the folder."""
    store, split = source.store, source.split
    is_text = store.spec.modality == "text"
    corruptions = [] if is_text or len(split.shifted) else corruption_grid(benchmark_options)
    pool = np.sort(np.concatenate([split.train, split.validation]))
    check_label_counts(benchmark_options.label_counts, split.y, pool)
    folder.claim(_settings(store, split, corruptions, source.options))
    runner = CellRunner(source, pool, corruptions, folder, progress)
    label_counts, seeds, notes = fit_into_time_budget(runner, benchmark_options, learners)
    cells = runner.cells(label_counts, seeds, learners)
    folder.clear()
    more = _failure_notes(folder, cells, f"{store.spec.modality}s")
    if is_text and not len(split.shifted):
        more.append("texts are not corrupted: accuracy on shifted data needs rows whose split is shifted")
    result = Benchmark(
        data=store.path,
        backbone=f"{store.spec.provider}/{store.spec.name}",
        label=source.label,
        device=folder.facts["device"],
        classes=split.classes.tolist(),
        label_counts=label_counts,
        seeds=seeds,
        learners=list(learners),
        test_rows=len(split.test) - len(folder.facts[CLEAN]),
        severities=list(benchmark_options.severities) if corruptions else [],
        cells=[finished.cell for finished in cells],
        differences=[],
        savings=[],
        splits_id=split.splits.identity,
        notes=[*random_notes([store.spec]), *split.splits.notes, *notes, *more],
        seconds=sum(finished.cell.seconds + finished.measuring for finished in cells),
        majority_accuracy=float(np.bincount(split.y[split.test]).max() / len(split.test)),
    )
    return dataclasses.replace(result, differences=find_differences(result), savings=find_savings(result))


def _check_learners(learners: Sequence[Learner]) -> list[Learner]:
    """Return the learners in the order of `ALL_LEARNERS`."""
    requested = [learners] if isinstance(learners, str) else list(learners)
    for learner in requested:
        if learner not in ALL_LEARNERS:
            raise UsageError(f"unknown learner {learner!r}{suggest(learner, ALL_LEARNERS)}")
    if not requested:
        raise UsageError(f"{option('learners')} must be at least one of {', '.join(ALL_LEARNERS)}, got none")
    return [learner for learner in ALL_LEARNERS if learner in requested]


def _settings(
    store: FeatureStore, split: SplitRows, corruptions: list[tuple[str, int]], options: FineTuneOptions
) -> dict[str, Any]:
    """Return what cells depend on but learner, labels and seed."""
    names = [f"{name} {severity}" for name, severity in corruptions]
    settings = run_settings(store, split, options, corruptions=", ".join(names) or "none", embedpipe=__version__)
    return {name: value for name, value in settings.items() if name != "seed"}


def _failure_notes(folder: BenchmarkFolder, cells: Sequence[FinishedCell], noun: str) -> list[str]:
    """Return notes on the items that were left out."""
    notes = []
    training = {id: reason for finished in cells for id, reason in finished.failed.items()}
    failures = [*((name, folder.facts.get(name, {})) for name in (CLEAN, SHIFTED)), ("training", training)]
    for name, failed in failures:
        if failed:
            id, reason = next(iter(failed.items()))
            notes.append(f"{len(failed)} {name} {noun} could not be read and were left out, such as {id!r}: {reason}")
    return notes
