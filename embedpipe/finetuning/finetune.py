"""`finetune`: fine-tunes the backbone of a store, starting from a linear head (LP-FT)."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

import numpy as np
import numpy.typing as npt

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Advance, Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import TrainingDataError, require_one_of
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.finetuning import run_folder
from embedpipe.finetuning.advice.ledger import LedgerRow, add_to_ledger, ledger_row
from embedpipe.finetuning.linear_probe import (
    align_classes,
    fit_default_probe,
    fit_on_vectors,
    fold_head,
    open_probe,
    refit_probe,
)
from embedpipe.finetuning.options import FineTuneOptions, LedgerOptions, Method, SplitOptions
from embedpipe.finetuning.result import FineTuneResult, InitialCheck, ProbeComparison
from embedpipe.finetuning.run_settings import digest, require_same, run_settings
from embedpipe.finetuning.source import load_frozen, open_item_set, open_items
from embedpipe.finetuning.split_rows import Rows, SplitRows, network_layer, read_split_rows
from embedpipe.finetuning.training.base_trainer import BaseTrainer, OnEpoch
from embedpipe.finetuning.training.classifier_network import SOFTENING, ClassifierNetwork
from embedpipe.finetuning.training.contrastive import ContrastiveTrainer, require_contrastive
from embedpipe.finetuning.training.distributed import Workers
from embedpipe.finetuning.training.launcher import require_one_process
from embedpipe.finetuning.training.trainer import Trainer
from embedpipe.heads import Head
from embedpipe.heads.conversion.linear_head import LinearHead
from embedpipe.heads.scoring import FitReport, measure_logits
from embedpipe.heads.training.vectors import read_finite
from embedpipe.splits.splits import Splits
from embedpipe.statistics import paired_interval
from embedpipe.statistics.percentages import percent
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import FineTuneParameters

OPTIONS = (FineTuneOptions, SplitOptions, ReloadOptions, LedgerOptions)
#: Largest allowed difference in validation accuracy between the head on stored features and the network before
#: training. A larger one means that the network does not see the images that were embedded.
ACCURACY_TOLERANCE = 0.01


@takes_options(*OPTIONS)
def finetune(
    source: FeatureStore | str | Path,
    head: Head | str | Path | None = None,
    *,
    to: str | Path,
    method: Method = "lp-ft",
    label: str = "label",
    backbone: str = "",
    device: str | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
    **options: Unpack[FineTuneParameters],
) -> FineTuneResult:
    """Fine-tune the backbone of a store, starting from a linear head on its features (LP-FT), or contrastively.

    LP-FT: the head, with its scaler and calibration, becomes the last layer of the network; then all weights are
    trained (Kumar, Raghunathan, Jones, Ma and Liang, ICLR 2022). Contrastive, for texts with few labels: the trainer of
    sentence-transformers brings texts of a class together and others apart, then a head is fitted on the new vectors
    (SetFit; Tunstall et al., 2022). The weights of the latest epoch whose validation accuracy is within one standard
    error of the best are kept, or those of the linear probe if it is more accurate, or as accurate and has a lower
    log-loss. The test rows are read once, at the end.

    A run that was interrupted continues where it stopped, on a CPU to bit-identical weights; a finished run is loaded.
    If a launcher (``accelerate launch``, ``torchrun``) has started several processes, each trains on its own GPU and
    its share of every batch.

    Parameters
    ----------
    source : FeatureStore or path
        A store of images or texts with labels, which are read again from where they were. Or the path of images or
        texts, as `embedpipe.embed` takes it; they are embedded into ``TO/features`` first. Texts need a backbone of
        ``sentence-transformers/`` or ``transformers/``.
    head : Head or path, optional
        A linear head on features of this store; by default a calibrated ``logreg`` is fitted. The head is fitted again
        on the training rows, with the penalty and temperature it has, because it may have seen the other rows.
    to : str or path-like
        A new or empty folder, or the folder of an earlier run with the same data and options.
    method : str
        ``lp-ft``, or ``contrastive`` for encoders of ``sentence-transformers/``.
    label : str
        The column to learn; ignored if ``head`` is given, which has its own.
    backbone : str
        ``PROVIDER/NAME``, for images or texts that are not in a store.
    device : str, optional
        ``cpu``, ``cuda`` or ``cuda:1``; by default the fastest device that works.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).
    on_epoch : callable, optional
        Called after each epoch with the list of all epochs so far.

    Returns
    -------
    FineTuneResult
        Its ``backbone_name`` is what `embedpipe.embed` takes, its ``head`` is loaded by `embedpipe.load_head`.

    Raises
    ------
    UsageError
        If an argument is wrong, the head is not linear, or the folder holds another run.
    TrainingDataError
        If there are too few labels, or the items are not those that were embedded.
    SpecMismatchError
        If the head and the store have different backbones.
    BackboneError
        If the network cannot be loaded or trained.

    See Also
    --------
    embedpipe.advise : Estimates whether fine-tuning is worth it.
    embedpipe.benchmark : Compares it with the linear probe and with training from scratch.
    FineTunedClassifier : The same training as a scikit-learn estimator.

    Examples
    --------
    >>> result = embedpipe.finetune("photos.features", to="photos.tuned", epochs=5)  # doctest: +SKIP
    >>> result  # doctest: +SKIP
    FineTuneResult('photos.tuned': epoch 5 of 5, test accuracy 89.0 %, linear probe 85.0 %)
    >>> store = embedpipe.embed("new_photos", "new.features", backbone=result.backbone_name)  # doctest: +SKIP
    """
    training, split_options, reload_options, ledger_options = build_options(OPTIONS, options)
    require_one_of("method", method, get_args(Method))
    if method == "contrastive":
        require_one_process("finetune", method)
    workers = Workers.launched(device)
    with contextlib.ExitStack() as lock:

        def open_run() -> tuple[str, int, str, Path]:
            folder = run_folder.check_folder(to)
            lock.enter_context(run_folder.lock_folder(folder))
            features = folder / run_folder.FEATURES
            store, column = open_items(source, features, label, backbone, device, progress, reload_options)
            return store.path, store.version, column, folder

        path, version, label, folder = workers.from_first(open_run)
        store = FeatureStore(path, version)
        show = Progress(progress if workers.first else False, detail=True)
        given_head = None if head is None else open_probe(head, store)
        with show.step("reading rows and splitting them"):
            split = read_split_rows(store, given_head.label if given_head else label, split_options)
        finished = workers.from_first(lambda: run_folder.read_result(folder))
        frozen = None
        if finished is None:  # before any fit, as the network is what may be missing
            spec = given_head.spec if given_head else store.spec.only(network_layer(store).name)
            if method == "contrastive":
                require_contrastive(spec, training, repr(store.path))
            with show.step("loading the network"):
                frozen = load_frozen(spec, reload_options, workers.device or device)
        with show.step("fitting the linear probe"):
            probe = workers.from_first(lambda: given_head or fit_default_probe(store, label, split))
        initial = align_classes(fold_head(probe), split.classes)
        head_weights = digest(initial.weight, initial.bias)
        settings = run_settings(store, split, training, head=head_weights, method=method)
        if finished is None:
            assert frozen is not None  # loaded above
            run_folder.require_method(folder, method)
            result = _train(
                probe, initial, frozen, split, store, folder, method, training, settings, workers, show, on_epoch
            )
            result.notes += _leakage_notes(given_head, store)
            if method == "contrastive" and (alone := int((np.bincount(split.y[split.train]) == 1).sum())):
                result.notes.append(f"classes with one training text, which teaches the head only: {alone}")
            if workers.first:
                run_folder.write_result({"settings": settings, **result.to_dict()}, folder)
                run_folder.delete_state(folder)
                if method == "lp-ft" and not ledger_options.no_ledger:
                    add_to_ledger([_ledger_row(result, split, store)])
            workers.wait()  # the other processes may read the files that the first has written
            return result
    remedy = f"give the same, or another folder ({option('to', ...)})"
    require_same(finished.pop("settings"), settings, f"the finished run in {str(folder)!r}", remedy)
    return run_folder.load_result(finished, folder, store.spec)


def _train(
    probe: Head,
    initial: LinearHead,
    frozen: Backbone,
    split: SplitRows,
    store: FeatureStore,
    folder: Path,
    method: Method,
    options: FineTuneOptions,
    settings: dict[str, Any],
    workers: Workers,
    progress: Progress,
    on_epoch: OnEpoch | None,
) -> FineTuneResult:
    """Train, or continue an interrupted run, and write weights, head and splits."""
    X = read_finite(store, probe.spec.layers, split.ids)
    learned = np.sort(np.concatenate([split.train, split.validation]))
    # The network starts from the head fitted on the training rows; the test compares it with the head fitted on both.
    with progress.step("fitting the linear probe again"):
        start, full = workers.from_first(
            lambda: [refit_probe(probe, X, split, rows) for rows in (split.train, learned)]
        )
    items = open_item_set(split, frozen, options.seed)
    network = ClassifierNetwork(frozen, initial, options.batch_norm, options.lora, options.seed)
    data, state = (items, split.y, split.train, split.validation), folder / run_folder.STATES[method]
    common: dict[str, Any] = {"state": state, "settings": settings, "on_epoch": on_epoch if workers.first else None}
    trainer: BaseTrainer
    if method == "contrastive":

        def fit_head(vectors: npt.NDArray[np.float32], rows: Rows) -> LinearHead:
            return fit_on_vectors(probe, vectors, split, rows)

        trainer = ContrastiveTrainer(network, *data, options, fit_head, **common)
    else:
        trainer = Trainer(network, *data, options, softening=SOFTENING, workers=workers, **common)
    with progress.step("checking the network before training", len(split.validation), items.noun) as advance:
        initial_check = _check_initial_network(trainer, initial, X, split, advance)
    network.set_head(start)
    run = trainer.fit(progress)
    if not run.best.number:  # the linear probe was better: use the one with all labels
        network.set_head(full)
    with progress.step("measuring on the test rows", len(split.test), items.noun) as advance:
        rows, logits = trainer.logits(split.test, advance)
    items.require(len(rows), len(split.test), "test")
    best, last = (run_folder.weights_path(frozen.spec, folder, name) for name in (run_folder.BEST, run_folder.LAST))
    if workers.first:
        run_folder.save_backbone(trainer.last_state, frozen, last)
        run_folder.save_backbone(network.network.module.state_dict(), frozen, best)
        _save_head(probe, trainer, rows, logits, split, best, folder)
        _test_splits(split).save(folder / run_folder.SPLITS)
    failed: dict[str, str] = {}
    for failures in workers.gather(items.left_out):
        failed |= failures
    return FineTuneResult(
        folder=str(folder),
        backbone=str(best),
        provider=run_folder.provider_of_weights(frozen.spec),
        modality=frozen.spec.modality,
        head=str(folder / run_folder.HEAD),
        epochs=run.epochs,
        best_epoch=run.best.number,
        initial_check=initial_check,
        test=_compare_with_probe(rows, logits, full, X, split),
        train_rows=len(split.train),
        validation_rows=len(split.validation),
        splits_id=split.splits.identity,
        seconds=sum(epoch.seconds for epoch in run.epochs),
        device=f"{workers.count} x {trainer.device.type}" if workers.count > 1 else str(trainer.device),
        precision=trainer.precision,
        augmentation=trainer.augmentation,
        failed=failed,
        notes=[*random_notes([store.spec]), *split.splits.notes],
    )


def _ledger_row(result: FineTuneResult, split: SplitRows, store: FeatureStore) -> LedgerRow:
    return ledger_row(
        store.spec,
        result.splits_id,
        labels=result.train_rows + result.validation_rows,
        classes=len(split.classes),
        probe=result.test.linear_probe,
        network=result.test.finetuned,
        test_rows=result.test.rows,
        seeds=1,
        minutes=result.seconds / 60,
    )


def _leakage_notes(head: Head | None, store: FeatureStore) -> list[str]:
    """Return a note if the penalty and temperature of a head may have been chosen on test rows."""
    if head is None or (head.is_of(store) and head.report.measured_on == "test" and not head.report.fine_tuned):
        return []
    return [
        "the penalty and temperature of the given head may have been chosen on test rows. Leave out the "
        f"{option('head')} to choose "
        "them on training and validation rows"
    ]


def _check_initial_network(
    trainer: BaseTrainer,
    head: LinearHead,
    X: npt.NDArray[np.float32],
    split: SplitRows,
    advance: Advance,
) -> InitialCheck:
    """Compare the network before training with the head on stored features, on the validation rows."""
    rows, logits = trainer.logits(split.validation, advance)
    trainer.items.require(len(rows), len(split.validation), "validation")
    expected = head.logits(X[rows])
    head_accuracy, network_accuracy = (
        float((values.argmax(axis=1) == split.y[rows]).mean()) for values in (expected, logits)
    )
    # Softmax does not change if a constant is added to all logits of a row, so each row is centred.
    differences = np.abs((logits - logits.mean(1, keepdims=True)) - (expected - expected.mean(1, keepdims=True)))
    if abs(head_accuracy - network_accuracy) > ACCURACY_TOLERANCE + 1 / len(rows):
        raise TrainingDataError(
            f"before training, the network must be as accurate as the head on stored features: on {len(rows)} "
            f"validation rows the network has {percent(network_accuracy)} and the head {percent(head_accuracy)}. Check "
            f"{option('weights', ...)}; if the items or embedpipe have changed, embed again"
        )
    return InitialCheck(head_accuracy, network_accuracy, float(differences.max()), len(rows))


def _test_splits(split: SplitRows) -> Splits:
    """Return the split of the run, to compare the network with others on its test rows."""
    train = np.sort(np.concatenate([split.train, split.validation]))
    tune = [(np.searchsorted(train, split.train), np.searchsorted(train, split.validation))]
    resample = dataclasses.replace(split.splits.resamples[0], train=train, test=split.test, tune=tune)
    notes = ["one split: the network was trained on all other rows"]
    return dataclasses.replace(
        split.splits, resamples=[resample], description="test rows of a fine-tuned network", notes=notes
    )


def _compare_with_probe(
    rows: Rows, logits: Floats, full: LinearHead, X: npt.NDArray[np.float32], split: SplitRows
) -> ProbeComparison:
    """Compare the fine-tuned network with a linear probe that was fitted on the same labels, on the test rows."""
    probe, tuned = (values.argmax(axis=1) == split.y[rows] for values in (full.logits(X[rows]), logits))
    both, probe_only = int((probe & tuned).sum()), int((probe & ~tuned).sum())
    tuned_only, neither = int((tuned & ~probe).sum()), int((~probe & ~tuned).sum())
    low, high = paired_interval(both, probe_only, tuned_only, neither, 0.95)
    difference = float(tuned.mean() - probe.mean())
    return ProbeComparison(len(rows), float(probe.mean()), float(tuned.mean()), difference, low, high)


def _save_head(
    probe: Head,
    trainer: BaseTrainer,
    rows: Rows,
    logits: Floats,
    split: SplitRows,
    best: Path,
    folder: Path,
) -> None:
    """Save the last layer of the network as a head on the features of the trained backbone."""
    options = run_folder.options_of_weights(probe.spec, best)
    spec = dataclasses.replace(load_with_options(options, "cpu").spec, layers=probe.spec.layers)
    report = FitReport("classification", "test", len(split.train), fine_tuned=True)
    y_test, y_train = (split.classes[split.y[part]] for part in (rows, split.train))
    measure_logits(logits, y_test, y_train, split.classes, report)
    Head(
        name="fine-tuned",
        estimator=trainer.network.head(split.classes).to_estimator(),
        spec=spec,
        label=probe.label,
        store=probe.store,
        store_id=probe.store_id,
        store_version=probe.store_version,
        report=report,
    ).save(folder / run_folder.HEAD)
