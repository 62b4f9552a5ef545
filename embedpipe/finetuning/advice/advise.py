"""`advise`: whether fine-tuning is worth it, by frozen baselines and, if requested, a pilot."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import EmbedpipeError, UsageError
from embedpipe.evaluation.comparison.rows import open_stores
from embedpipe.finetuning.advice.frozen_baselines import measure_frozen_baselines, refit_best
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.advice.pilot import CORRUPTIONS, LEARNERS, PilotPlan, pilot_runs, plan_pilot, time_training
from embedpipe.finetuning.advice.result import Advice, FrozenBaselines, NextStep
from embedpipe.finetuning.advice.verdict import Verdict, judge
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder
from embedpipe.finetuning.benchmark.paired_runs import PilotRun
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.source import check_images, open_images
from embedpipe.finetuning.split_rows import SplitRows, read_split_rows
from embedpipe.finetuning.training.launcher import require_one_process
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import AdviseParameters

OPTIONS = (AdviseOptions, FineTuneOptions, SplitOptions, ReloadOptions)
#: Options with their defaults, which a printed command leaves out.
DEFAULTS = {(field.name, field.default) for cls in OPTIONS for field in dataclasses.fields(cls)} | {("label", "label")}
#: Options of `advise` that are not passed on to `benchmark`.
ADVISE_ONLY = {field.name for field in dataclasses.fields(AdviseOptions)}


@takes_options(*OPTIONS)
def advise(
    source: FeatureStore | str | Path | Sequence[FeatureStore | str | Path],
    *,
    to: str | Path | None = None,
    label: str = "label",
    backbone: str = "",
    pilot: bool = False,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[AdviseParameters],
) -> Advice:
    """Decide whether fine-tuning is worth it: *worth it*, *not worth it* or *can't tell yet*.

    First, heads on all layers of the stores are measured by cross-validation on the training and validation rows. The
    error of the best of them is the largest possible gain. Then, if requested, a pilot trains networks on an eighth and
    a quarter of the labels and compares them with the best head on the same draws of rows.

    Parameters
    ----------
    source : FeatureStore or path, or a sequence of them
        A store of labelled images, whose files are read again. Further stores hold the same items by other backbones;
        their features are compared, their backbones are not trained. Or images, as `embedpipe.embed` takes them: they
        are embedded into ``features`` in ``to`` first.
    to : str or path-like, optional
        Folder for the runs of a pilot. The same call continues a pilot that was interrupted.
    label : str
        The column to learn.
    backbone : str
        Backbone for images that are not in a store yet.
    pilot : bool
        Run a pilot. ``time_budget`` runs one that fits into a time.
    device : str, optional
        Where to train; by default the fastest usable device.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Advice

    Raises
    ------
    UsageError
        If an argument is wrong, or stores have no items in common.
    TrainingDataError
        If there are too few labelled rows.
    BackboneError
        If the network of a pilot cannot be loaded or trained.

    Notes
    -----
    The test rows, those of the same splits as in `embedpipe.evaluate`, are the held-out rows of the pilot: each of its
    cells is measured on them once, after its training. Without a pilot the test rows are not read.

    The pilot's networks are compared with the linear probe or with the best frozen baseline fitted on the same draws,
    whichever is more accurate at a label count.

    `embedpipe.finetuning.advice.verdict.judge` documents the decision rule. Without a pilot the verdict is *not worth
    it*, if the largest possible gain is too small, or *can't tell yet*.

    Examples
    --------
    >>> advice = embedpipe.advise("photos.features")  # doctest: +SKIP
    >>> advice.verdict.decision  # doctest: +SKIP
    "can't tell yet"
    >>> print(advice.next_step.command)  # doctest: +SKIP
    embedpipe advise photos.features --pilot --to photos.pilot
    """
    start = time.perf_counter()
    advise_options, training, split_options, reload_options = build_options(OPTIONS, options)
    require_one_process("advise")
    wants_pilot = pilot or advise_options.time_budget is not None
    if wants_pilot and to is None:
        raise UsageError(f"a pilot needs a folder for its runs: give one ({option('to', ...)})")
    if wants_pilot and to is not None:
        BenchmarkFolder(to)  # refuse a folder of something else before any work
    stores, label = _open_stores(source, to, label, backbone, device, progress, reload_options)
    first = stores[0]
    with Progress(progress).step("reading rows and splitting them"):
        split = read_split_rows(first, label, split_options)
    baselines = measure_frozen_baselines(stores, split, label, advise_options.min_gain, progress)
    labels = len(split.train) + len(split.validation)
    decide = functools.partial(
        judge,
        probe_accuracy=baselines.selected_accuracy,
        total_labels=labels,
        min_gain=advise_options.min_gain,
        shift_margin=advise_options.shift_margin,
        pilot_possible=plan_pilot(split, advise_options.seeds, None) is not None,
    )
    notes = [*random_notes(store.spec for store in stores), *split.splits.notes, *baselines.notes]
    verdict, benchmark, cost = decide([], test_rows=len(split.test)), None, None
    if verdict.decision == "can't tell yet":
        try:
            with Progress(progress).step("timing a few steps of training"):
                cost = time_training(first, split, training, reload_options, device)
        except EmbedpipeError as error:
            if wants_pilot:
                raise
            notes.append(f"The time of training could not be measured: {error}")
        verdict = decide([], test_rows=len(split.test), full_run_seconds=cost.full if cost else None)
    full_plan = plan_pilot(split, advise_options.seeds, cost)
    plan = None
    if cost and wants_pilot:
        plan = plan_pilot(split, advise_options.seeds, cost, advise_options.budget_seconds)
    if plan and to is not None:
        shared = {name: value for name, value in options.items() if name not in ADVISE_ONLY}
        run_options = {**shared, "label": label, "device": device, "seeds": advise_options.seeds}
        benchmark = _run_pilot(first, to, plan, progress, run_options)
        runs, pilot_notes = _paired_runs(benchmark, baselines, stores, split)
        shifted_rows = len(benchmark.cells[0].shifted_correct) or None
        verdict = decide(runs, test_rows=benchmark.test_rows, shifted_rows=shifted_rows)
        notes += [*benchmark.notes, *pilot_notes]
    elif wants_pilot:
        notes.append(f"No pilot was run: {_reason_for_no_pilot(verdict, labels, full_plan, advise_options)}.")
    would_change = [*verdict.would_change]
    if verdict.decision != "not worth it" and len(stores) == 1 and len(first.layers) == 1:
        would_change.append("A better layer: the store has one layer, and `embed --layer NAME` stores several at once.")
    arguments: dict[str, Any] = {
        "label": label,
        "device": device,
        **{k: v for k, v in options.items() if k != "time_budget"},
    }
    weights = arguments.get("weights")
    if first.spec.provider == "checkpoint" and (weights is None or ("weights", weights) in DEFAULTS):
        arguments["weights"] = "FILE"  # a placeholder, because the store does not know the path
    folder = os.fspath(to) if to is not None else f"{Path(first.path).stem}.pilot"
    paths = [store.path for store in stores]
    return Advice(
        verdict=verdict,
        frozen_baselines=baselines,
        pilot=benchmark,
        label=label,
        device=benchmark.device if benchmark else cost.device if cost else "",
        labels=labels,
        test_rows=len(split.test),
        would_change=would_change,
        next_step=_find_next_step(paths, verdict, labels, full_plan, benchmark, folder, arguments),
        notes=[*dict.fromkeys(notes)],
        seconds=time.perf_counter() - start,
    )


def _open_stores(
    source: FeatureStore | str | Path | Sequence[FeatureStore | str | Path],
    to: str | Path | None,
    label: str,
    backbone: str,
    device: str | None,
    progress: bool | None,
    reload: ReloadOptions,
) -> tuple[list[FeatureStore], str]:
    """Return the stores and the label column; images are embedded into ``to`` first."""
    if isinstance(source, str | Path) and not FeatureStore.exists(os.fspath(source)):
        if to is None:
            raise UsageError(
                f"source must be a feature store, got {os.fspath(source)!r}: embed the images first, or give a folder "
                f"({option('to', ...)})"
            )
        store, label = open_images(source, BenchmarkFolder(to).features, label, backbone, device, progress, reload)
        return [store], label
    stores = open_stores(source)
    if backbone:
        raise UsageError(
            f"backbone is only for images that are not in a store, got {option('backbone', backbone)} with the store "
            f"{stores[0].path!r}: leave it out"
        )
    for store in stores:
        check_images(store)
    return stores, label


def _run_pilot(
    store: FeatureStore, to: str | Path, plan: PilotPlan, progress: bool | None, options: Mapping[str, Any]
) -> Benchmark:
    from embedpipe.finetuning.benchmark.benchmark import benchmark

    pilot_options: Any = {**options, **CORRUPTIONS, "label_counts": plan.label_counts}
    return benchmark(store, to=to, learners=LEARNERS, progress=progress, **pilot_options)


def _paired_runs(
    benchmark: Benchmark, baselines: FrozenBaselines, stores: Sequence[FeatureStore], split: SplitRows
) -> tuple[list[PilotRun], list[str]]:
    """Return the pilot's runs paired with the best of linear probe and frozen baselines, and notes."""
    # Test images that cannot be read are missing in the cells, whose rows then do not match those of the split.
    best = refit_best(baselines, stores, split) if benchmark.test_rows == len(split.test) else None
    if best is None:
        return pilot_runs(benchmark), []
    reference = baselines.reference.name
    note = (
        f"The pilot's networks were compared with {baselines.best.name} or {reference}, whichever was more accurate at "
        f"a label count; on corrupted images with {reference}, as other baselines have no features of these."
    )
    return pilot_runs(benchmark, best), [note]


def _reason_for_no_pilot(verdict: Verdict, labels: int, full_plan: PilotPlan | None, options: AdviseOptions) -> str:
    if verdict.decision == "not worth it":
        return "it could not change the verdict"
    if full_plan is None:
        return f"{labels:,} labels are too few for a pilot on an eighth of them"
    return f"none fits into {options.time_budget}"


def _find_next_step(
    stores: list[str],
    verdict: Verdict,
    labels: int,
    full_plan: PilotPlan | None,
    benchmark: Benchmark | None,
    to: str,
    arguments: Mapping[str, Any],
) -> NextStep | None:
    """Return the command that can be expected to decide: a full pilot, more seeds of it, or runs on all labels."""
    deciding = verdict.deciding_run
    if deciding is None:
        return None
    chosen = {
        name: value for name, value in arguments.items() if value not in (None, False) and (name, value) not in DEFAULTS
    }
    if full_plan and (benchmark is None or list(full_plan.label_counts) != benchmark.label_counts):
        smaller, larger = full_plan.label_counts
        seeds = chosen.get("seeds", AdviseOptions.seeds)
        description = f"a pilot on {smaller:,} and {larger:,} labels with {seeds} seeds each"
        return NextStep(description, "advise", stores, {**chosen, "pilot": True, "to": to}, full_plan.minutes)
    if benchmark and deciding.labels == benchmark.label_counts[-1] < labels:
        minutes = deciding.minutes and deciding.minutes * sum(benchmark.label_counts) / benchmark.label_counts[-1]
        plural = "s" if deciding.seeds > 1 else ""
        description = f"the pilot with {deciding.seeds} more seed{plural} at each label count"
        seeds = len(benchmark.seeds) + deciding.seeds
        return NextStep(description, "advise", stores, {**chosen, "seeds": seeds, "pilot": True, "to": to}, minutes)
    shared = {name: value for name, value in chosen.items() if name not in ADVISE_ONLY}
    options = {**shared, **CORRUPTIONS, "learners": LEARNERS, "label_counts": (labels,), "seeds": 2, "to": to}
    description = f"{' and '.join(LEARNERS)} on all {labels:,} labels with 2 seeds"
    return NextStep(description, "benchmark", stores[:1], options, verdict.minutes and 2 * verdict.minutes)
