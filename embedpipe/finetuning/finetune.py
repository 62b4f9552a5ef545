"""`finetune`: fine-tunes the backbone of a store, starting from a linear head (LP-FT)."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, get_args

import numpy as np

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import require_one_of
from embedpipe.finetuning import run_folder
from embedpipe.finetuning.advice.ledger import LedgerRow, add_to_ledger, ledger_row
from embedpipe.finetuning.linear_probe import align_classes, fit_default_probe, fold_head, open_probe
from embedpipe.finetuning.options import FineTuneOptions, LedgerOptions, Method, SplitOptions
from embedpipe.finetuning.result import FineTuneResult
from embedpipe.finetuning.run import FineTuneRun
from embedpipe.finetuning.run_settings import digest, require_same, run_settings
from embedpipe.finetuning.source import load_frozen, open_items, reload_named
from embedpipe.finetuning.split_rows import SplitRows, network_layer, read_split_rows
from embedpipe.finetuning.training.base_trainer import OnEpoch
from embedpipe.finetuning.training.contrastive import require_contrastive
from embedpipe.finetuning.training.distributed import Workers
from embedpipe.finetuning.training.launcher import require_one_process
from embedpipe.heads import Head
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import FineTuneParameters

OPTIONS = (FineTuneOptions, SplitOptions, ReloadOptions, LedgerOptions)


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
                frozen = load_frozen(spec, reload_named(backbone, reload_options), workers.device or device)
        with show.step("fitting the linear probe"):
            probe = workers.from_first(lambda: given_head or fit_default_probe(store, label, split))
        initial = align_classes(fold_head(probe), split.classes)
        head_weights = digest(initial.weight, initial.bias)
        settings = run_settings(store, split, training, head=head_weights, method=method)
        if finished is None:
            assert frozen is not None  # loaded above
            run_folder.require_method(folder, method)
            run = FineTuneRun(
                store, split, probe, initial, frozen, folder, method, training, settings, workers, show, on_epoch
            )
            result = run.train()
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
