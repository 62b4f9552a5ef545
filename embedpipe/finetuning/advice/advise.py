"""`advise`: whether fine-tuning is worth it, after all that is cheap has been tried, and if asked by a pilot."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import EmbedpipeError, UsageError
from embedpipe.evaluation.comparison.rows import open_stores
from embedpipe.finetuning.advice.frozen_baselines import best_hits, measure_frozen_baselines
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.advice.pilot import CORRUPTED, LEARNERS, PilotPlan, pilot_runs, plan_pilot, time_training
from embedpipe.finetuning.advice.result import Advice, NextStep
from embedpipe.finetuning.advice.verdict import A_PILOT, Verdict, judge
from embedpipe.finetuning.benchmark.cell_files import RunFolder
from embedpipe.finetuning.benchmark.result import Benchmark
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.source import open_images
from embedpipe.finetuning.split_rows import read_split_rows
from embedpipe.finetuning.training.launcher import require_one_process
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import AdviseParameters

OPTIONS = (AdviseOptions, FineTuneOptions, SplitOptions, ReloadOptions)
#: What a command need not say.
USUAL = {(each.name, each.default) for one in OPTIONS for each in dataclasses.fields(one)} | {("label", "label")}
#: Options that are not the benchmark's, or are set anew for it.
OWN = {field.name for field in dataclasses.fields(AdviseOptions)}


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
    """Say whether fine-tuning is worth it: *worth it*, *not worth it*, or *can't tell yet*.

    First what is cheap: heads on all layers of the stores, by cross-validation on the training and validation rows.
    What the best of them gets wrong is the most that there is to gain. Then, if asked, a pilot: networks are trained on
    an eighth and a quarter of the labels, and held against a head on the same draws of rows.

    Parameters
    ----------
    source : FeatureStore or path, or a sequence of them
        A store of images with labels, whose files are read again; others are of the same items by other backbones, and
        are only compared as they are. Or images, as `embedpipe.embed` takes them, which are embedded into ``features``
        in ``to`` first.
    to : str or path-like, optional
        A folder for a pilot's runs, which go on there after a kill.
    label : str
        The column to learn.
    backbone : str
        What embeds images that are in no store yet.
    pilot : bool
        Pay for a pilot; ``time_budget`` allows one that fits into it.
    device : str, optional
        Where to train; the fastest usable device by default.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    **options
        Fields of `AdviseOptions`, `FineTuneOptions` (how networks are trained), `SplitOptions` and `ReloadOptions`.

    Returns
    -------
    Advice

    Raises
    ------
    UsageError
        If an argument is wrong, or stores have no items in common.
    TrainingDataError
        If there is too little to learn from.
    BackboneError
        If the network of a pilot cannot be loaded or trained.

    Notes
    -----
    Test rows, by the same splits as `embedpipe.evaluate`, are the pilot's held-out part: each of its cells is measured
    on them once, after its training. Nothing else reads them, and without a pilot nothing does.

    What the pilot's networks are held against is what is cheap: the head of the benchmark, or the best cheap option
    fitted on the same draws, whichever is right more often at a size.

    The rule is `judge` of `verdict`: without a pilot it can only say that there is too little to gain,
    and then no network is trained at all.

    Examples
    --------
    >>> advice = embedpipe.advise("photos.features")  # doctest: +SKIP
    >>> advice.verdict.decision, advice.next_step  # doctest: +SKIP
    """
    start = time.perf_counter()
    chosen, training, split_options, reload_options = build_options(OPTIONS, options)
    require_one_process("advise")
    wanted = pilot or chosen.time_budget is not None
    if wanted and to is None:
        raise UsageError("a pilot trains networks: name a folder for its runs (--to)")
    if wanted and to is not None:
        RunFolder(to)  # refuses what is none before there is work
    stores, label = _open(source, to, label, backbone, device, progress, reload_options)
    first = stores[0]
    split = read_split_rows(first, label, split_options)
    cheap = measure_frozen_baselines(stores, split, label, chosen.min_gain, progress)
    labels = len(split.train) + len(split.validation)
    ask = functools.partial(
        judge,
        probe_at_full=cheap.chosen,
        labels_at_full=labels,
        min_gain=chosen.min_gain,
        shift_margin=chosen.shift_margin,
    )
    verdict, found, cost, notes = ask([], test_rows=len(split.test)), None, None, [*split.splits.notes, *cheap.notes]
    if verdict.decision == "can't tell yet":
        Progress(progress).say("timing a few steps of training")
        try:
            cost = time_training(first, split, training, reload_options, device)
        except EmbedpipeError as error:
            if wanted:
                raise
            notes.append(f"What training takes could not be measured: {error}")
        verdict = ask([], test_rows=len(split.test), seconds_at_full=cost.full if cost else None)
    whole = plan_pilot(split, chosen.seeds, cost)
    plan = plan_pilot(split, chosen.seeds, cost, chosen.seconds_allowed) if cost and wanted else None
    shared = {name: value for name, value in options.items() if name not in OWN}
    if plan and to is not None:
        from embedpipe.finetuning.benchmark.benchmark import benchmark

        run = {**shared, **CORRUPTED, "label_counts": plan.sizes, "seeds": chosen.seeds}
        found = benchmark(first, to=to, label=label, learners=LEARNERS, device=device, progress=progress, **run)
        better = best_hits(cheap, stores, split) if found.test_rows == len(split.test) else None
        verdict = ask(
            pilot_runs(found, better),
            test_rows=found.test_rows,
            shifted_rows=len(found.cells[0].shifted_correct) or None,
        )
        notes += found.notes
        if better:
            notes.append(
                f"The pilot's networks were held against {cheap.best.name} or {cheap.plain.name}, whichever was better "
                f"at a size; on corrupted pictures against {cheap.plain.name}, as nothing else has vectors of these."
            )
    elif wanted:
        notes.append(f"No pilot was run: {_why_none(verdict, labels, whole, chosen)}.")
    more = "More labels: these are too few for a pilot."
    would_change = [more if one == A_PILOT and not whole else one for one in verdict.would_change]
    if verdict.decision != "not worth it" and len(stores) == 1 and len(first.layers) == 1:
        would_change.append("A better layer: the store has one only, and `embed --layer NAME` stores several at once.")
    asked = {"label": label, "device": device, **{k: v for k, v in options.items() if k != "time_budget"}}
    of_a_file = first.spec.provider == "checkpoint"
    folder = os.fspath(to) if to is not None else f"{Path(first.path).stem}.pilot"
    return Advice(
        verdict=verdict,
        frozen_baselines=cheap,
        pilot=found,
        label=label,
        device=found.device if found else cost.device if cost else "",
        labels=labels,
        test_rows=len(split.test),
        would_change=would_change,
        next_step=_next_step(
            [store.path for store in stores],
            verdict,
            labels,
            whole,
            found,
            folder,
            asked,
            of_a_file,
        ),
        notes=notes,
        seconds=time.perf_counter() - start,
    )


def _open(
    source: FeatureStore | str | Path | Sequence[FeatureStore | str | Path],
    to: str | Path | None,
    label: str,
    backbone: str,
    device: str | None,
    progress: bool | None,
    reload: ReloadOptions,
) -> tuple[list[FeatureStore], str]:
    """Return the stores and the column to learn; images are embedded into the folder first."""
    if isinstance(source, str | Path) and not FeatureStore.exists(os.fspath(source)):
        if to is None:
            raise UsageError(f"there is no feature store at {os.fspath(source)!r}: embed images first, or into --to")
        store, label = open_images(source, RunFolder(to).features, label, backbone, device, progress, reload)
        return [store], label
    stores = open_stores(source)
    if backbone:
        raise UsageError(f"backbone={backbone!r} is for images, and {stores[0].path!r} is a store: leave it out")
    for store in stores:
        open_images(store, Path(), label, "", device, progress, reload)  # refuses one of texts
    return stores, label


def _why_none(verdict: Verdict, labels: int, whole: PilotPlan | None, chosen: AdviseOptions) -> str:
    if verdict.decision == "not worth it":
        return "none could change the verdict"
    if whole is None:
        return f"{labels:,} labels are too few for one on an eighth of them"
    return f"none fits into {chosen.time_budget}"


def _next_step(
    stores: list[str],
    verdict: Verdict,
    labels: int,
    whole: PilotPlan | None,
    found: Benchmark | None,
    to: str,
    asked: Mapping[str, Any],
    of_a_file: bool,
) -> NextStep | None:
    """Return the run that would settle it: a whole pilot, more seeds of it, or all labels."""
    settling = verdict.deciding_run
    if settling is None:
        return None
    given = {name: value for name, value in asked.items() if value not in (None, False) and (name, value) not in USUAL}
    if of_a_file and "weights" not in given:
        given["weights"] = "FILE"  # which nobody but the user knows
    if whole and (found is None or list(whole.sizes) != found.label_counts):
        seeds = given.get("seeds", AdviseOptions.seeds)
        description = f"a pilot on {whole.sizes[0]:,} and {whole.sizes[1]:,} labels, {seeds} seeds each"
        return NextStep(description, "advise", stores, {**given, "pilot": True, "to": to}, whole.minutes)
    if found and settling.labels == found.label_counts[-1] < labels:
        seeds = len(found.seeds) + settling.seeds
        minutes = settling.minutes and settling.minutes * sum(found.label_counts) / found.label_counts[-1]
        description = f"the pilot with {settling.seeds} more seed{'s' * (settling.seeds > 1)} of each size"
        return NextStep(description, "advise", stores, {**given, "seeds": seeds, "pilot": True, "to": to}, minutes)
    shared = {name: value for name, value in given.items() if name not in OWN}
    options = {**shared, **CORRUPTED, "learners": LEARNERS, "label_counts": (labels,), "seeds": 2, "to": to}
    description = f"linear-probe and lp-ft on all {labels:,} labels, 2 seeds"
    return NextStep(description, "benchmark", stores[:1], options, verdict.minutes and 2 * verdict.minutes)
