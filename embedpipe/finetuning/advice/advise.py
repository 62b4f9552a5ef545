"""`advise`: what fine-tuning is expected to gain, and what to do; with a time budget, runs that find out."""

from __future__ import annotations

import dataclasses
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
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.rows import open_stores
from embedpipe.finetuning.advice.frozen_baselines import measure_frozen_baselines
from embedpipe.finetuning.advice.inquiry import ADVISE_ONLY, Inquiry
from embedpipe.finetuning.advice.ledger import add_to_ledger, data_digest, ledger_row, read_ledger
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.advice.result import Advice
from embedpipe.finetuning.benchmark.cell_files import BenchmarkFolder
from embedpipe.finetuning.options import FineTuneOptions, LedgerOptions, SplitOptions
from embedpipe.finetuning.run_folder import lock_folder
from embedpipe.finetuning.source import open_items, reload_named, require_trainable
from embedpipe.finetuning.split_rows import hold_out_training_rows, read_split_rows
from embedpipe.finetuning.training.launcher import require_one_process
from embedpipe.report.drawing.wording import counted
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import AdviseParameters

OPTIONS = (AdviseOptions, FineTuneOptions, SplitOptions, ReloadOptions, LedgerOptions)
#: Options with their defaults, which a printed command leaves out.
DEFAULTS = {(field.name, field.default) for cls in OPTIONS for field in dataclasses.fields(cls)} | {("label", "label")}
#: Folder of the network that `act` trains.
NETWORK = "network"


@takes_options(*OPTIONS)
def advise(
    source: FeatureStore | str | Path | Sequence[FeatureStore | str | Path],
    *,
    to: str | Path | None = None,
    label: str = "label",
    backbone: str = "",
    act: bool = False,
    device: str | None = None,
    progress: bool | None = None,
    **options: Unpack[AdviseParameters],
) -> Advice:
    """Forecast what fine-tuning gains over the best head on frozen features, and say what to do.

    First, heads on all layers of the stores are measured by cross-validation on the training and validation rows. The
    forecast is that of a model of published gains, for such a probe, as many labels and classes, and the backbone's
    kind of pretraining. With a time budget, networks are then trained on a part of the labels or on all of them: each
    time the cheapest runs that can be expected to decide, until the forecast decides or the budget is spent.

    Parameters
    ----------
    source : FeatureStore or path, or a sequence of them
        A store of labelled images or texts, which are read again. Further stores hold the same items by other
        backbones; their features are compared, their backbones are not trained. Or the path of images or texts, as
        `embedpipe.embed` takes it: they are embedded into ``features`` in ``to`` first.
    to : str or path-like, optional
        Folder for the runs. Runs that an earlier call finished there count, and an interrupted one is continued.
    label : str
        The column to learn.
    backbone : str
        Backbone for images or texts that are not in a store yet.
    act : bool
        Fine-tune in ``network`` in ``to``, if that is recommended, or if the forecast is still open and the expected
        gain is above what is asked for. The network is kept if it is better than the head on the validation rows; the
        test rows are read once, at the end.
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
        If a network cannot be loaded or trained that the time budget is for.

    Notes
    -----
    The test rows, those of the same splits as in `embedpipe.evaluate`, are not read before ``act``. Networks are
    measured on a fifth of the training and validation rows, which is held out from them, and trained on up to four
    fifths.

    Networks are compared with the linear probe or with the best frozen baseline fitted on the same draws, whichever is
    more accurate at a label count.

    What was measured is kept in a ledger in the cache folder, without names of data. Later forecasts on other data take
    it into account.

    `embedpipe.finetuning.advice.forecasting.forecast` documents the forecast, which decides at a probability of 0.9,
    and `embedpipe.finetuning.advice.verdict.judge` the strict rule whose decision stands beside it.

    Examples
    --------
    >>> advice = embedpipe.advise("photos.features")  # doctest: +SKIP
    >>> advice.recommendation, advice.forecast.probability  # doctest: +SKIP
    ('find out first', 0.71)
    >>> print(advice.next_step.command)  # doctest: +SKIP
    embedpipe advise photos.features --time-budget 12min --to photos.advice
    """
    start = time.perf_counter()
    advise_options, training, split_options, reload_options, ledger_options = build_options(OPTIONS, options)
    require_one_process("advise")
    budget = advise_options.budget_seconds
    for name, given in (("a time budget", budget is not None), (option("act", True), act)):
        if given and to is None:
            raise UsageError(f"{name} needs a folder for its runs: give one ({option('to', ...)})")
    folder = BenchmarkFolder(to, NETWORK) if to is not None else None
    stores, label = _open_stores(source, to, label, backbone, device, progress, reload_options)
    reload_options = reload_named(backbone, reload_options)
    first = stores[0]
    with Progress(progress).step("reading rows and splitting them"):
        split = read_split_rows(first, label, split_options)
        held = hold_out_training_rows(split)
    baselines = measure_frozen_baselines(stores, split, label, advise_options.min_gain, Progress(progress))
    given_options = advise_options, training, reload_options
    inquiry = Inquiry(stores, label, split, held, baselines, folder, *given_options, device, progress)
    inquiry.notes += [*random_notes(store.spec for store in stores), *split.splits.notes, *baselines.notes]
    identity = split.splits.identity
    if not ledger_options.no_ledger:
        ledger, ledger_notes = read_ledger(data_digest(identity))
        inquiry.known, inquiry.notes = [row.observed() for row in ledger], inquiry.notes + ledger_notes
    inquiry.measure_cost(needed=budget is not None or act or advise_options.point_seconds is not None)
    inquiry.find_out(None if budget is None else start + budget)
    if not ledger_options.no_ledger:
        add_to_ledger([ledger_row(first.spec, identity, **measured) for measured in inquiry.runner.measured()])

    network = next_step = None
    if act and to is not None and inquiry.forecast.choice == "fine-tune":
        from embedpipe.finetuning.finetune import finetune

        shared: Any = {name: value for name, value in options.items() if name not in ADVISE_ONLY}
        shared |= {"weights": reload_options.weights, "trust": reload_options.trust}
        network = finetune(first, to=Path(to) / NETWORK, label=label, device=device, progress=progress, **shared)
    else:
        unread = counted(len(split.test), "test row")
        inquiry.notes.append(f"{unread} not read: they are for the network of {option('act', True)}")
        place = os.fspath(to) if to is not None else f"{Path(first.path).stem}.advice"
        next_step = inquiry.next_step(place, _chosen_options(first, label, device, options))
    verdict, cost = inquiry.verdict(), inquiry.cost
    would_change = [*verdict.would_change]
    if verdict.decision != "not worth it" and len(stores) == 1 and len(first.layers) == 1:
        would_change.append("A better layer: the store has one layer, and `embed --layer NAME` stores several at once.")
    return Advice(
        forecast=inquiry.forecast,
        steps=inquiry.steps,
        verdict=verdict,
        frozen_baselines=baselines,
        benchmarks=inquiry.runner.benchmarks,
        network=network,
        label=label,
        device=cost.device if cost else "",
        labels=inquiry.labels,
        held_out_rows=inquiry.runner.test_rows,
        would_change=would_change,
        next_step=next_step,
        notes=[*dict.fromkeys([*inquiry.notes, *inquiry.runner.notes])],
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
    """Return the stores and the label column; items are embedded into ``to`` first."""
    if isinstance(source, str | Path) and not FeatureStore.exists(os.fspath(source)):
        if to is None:
            path = os.fspath(source)
            advice = f"embed the items first, or give a folder ({option('to', ...)})"
            if "://" not in path and not os.path.lexists(path):
                advice = "nothing is there, check the path"
            raise UsageError(f"source must be a feature store, got {path!r}: {advice}")
        folder = BenchmarkFolder(to, NETWORK)
        with lock_folder(folder.path):
            store, label = open_items(source, folder.features, label, backbone, device, progress, reload)
        return [store], label
    stores = open_stores(source)
    if backbone:
        raise UsageError(
            f"backbone is only for items that are not in a store, got {option('backbone', backbone)} with the store "
            f"{stores[0].path!r}: leave it out"
        )
    require_trainable(stores[0].spec, repr(stores[0].path))
    return stores, label


def _chosen_options(store: FeatureStore, label: str, device: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call that differ from the defaults, as a printed command repeats them."""
    arguments: dict[str, Any] = {"label": label, "device": device, **options}
    arguments.pop("time_budget", None)
    weights = arguments.get("weights")
    if store.spec.provider == "checkpoint" and (weights is None or ("weights", weights) in DEFAULTS):
        arguments["weights"] = "FILE"  # a placeholder, because the store does not know the path
    unset = (None, False)  # compared as objects, since 0 == False
    return {
        name: value
        for name, value in arguments.items()
        if not any(value is each for each in unset) and (name, value) not in DEFAULTS
    }
