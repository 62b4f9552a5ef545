"""`finetune`: from a store and a linear head to a trained network, and back to a backbone and a head of it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import numpy.typing as npt

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.image_backbone import ImageBackbone
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.finetuning import run_folder as place
from embedpipe.finetuning.linear_probe import aligned, fitted_anew, open_probe, usual_probe
from embedpipe.finetuning.lock import working_alone
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.result import FineTuneResult, Measured, StepZero
from embedpipe.finetuning.source import image_set_of, load_frozen, open_images
from embedpipe.finetuning.split_options import SplitOptions
from embedpipe.finetuning.split_rows import Rows, SplitRows, read_split_rows
from embedpipe.finetuning.training.classifier_network import SOFTENED, ClassifierNetwork
from embedpipe.finetuning.training.distributed import Workers
from embedpipe.finetuning.training.linear_head import LinearHead, estimator_of, linear_of
from embedpipe.finetuning.training.trainer import OnEpoch, Trainer
from embedpipe.heads import Head
from embedpipe.heads.scoring import FitReport, measure
from embedpipe.heads.training_data import read_finite
from embedpipe.splits.splits import Splits
from embedpipe.statistics import paired_interval
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import FineTuneParameters

OPTIONS = (FineTuneOptions, SplitOptions, ReloadOptions)
#: How much less accurate the network may be at first than the stored head is on stored vectors of the same pictures:
#: if it is less, it does not see what was embedded.
SAME = 0.01


@takes_options(*OPTIONS)
def finetune(
    source: FeatureStore | str | Path,
    head: Head | str | Path | None = None,
    *,
    to: str | Path,
    label: str = "label",
    backbone: str = "",
    device: str | None = None,
    progress: bool | None = None,
    on_epoch: OnEpoch | None = None,
    **options: Unpack[FineTuneParameters],
) -> FineTuneResult:
    """Train the network behind a store, beginning with a linear head on its features.

    The head with its scaler and calibration becomes the network's last layer, then all weights are trained (LP-FT:
    Kumar, Raghunathan, Jones, Ma and Liang, ICLR 2022). The latest epoch that the validation rows do not tell from the
    best is kept, or the untrained network where that was better on them. Test rows are read once, at the end. A run
    that is killed goes on where it was, to the same weights bit for bit on a processor; one that is finished is read
    again. Where a launcher (``accelerate launch``, ``torchrun``) began several processes, they train together, each on
    its GPU and its share of every batch.

    Parameters
    ----------
    source : FeatureStore or path
        A store of images with labels, whose files are read again; or the images, as `embedpipe.embed` takes them, which
        are embedded into ``features`` in the run's folder first.
    head : Head or path, optional
        A linear head on this store's features; by default a calibrated ``logreg`` is fitted. Its choices (penalty,
        temperature) are kept, and it is fitted again on the training rows alone, as it may have seen the others.
    to : str or path-like
        A new or empty folder, or that of an earlier run of the same.
    label : str
        The column to learn, where no head says.
    backbone : str
        What embeds images that are in no store yet.
    device : str, optional
        Where to train; the fastest usable device by default.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    on_epoch : callable, optional
        Is given the list of all `Epoch` so far, after each: to show how it goes.
    **options
        Fields of `FineTuneOptions`, `SplitOptions` and `ReloadOptions`.

    Returns
    -------
    FineTuneResult
        Its ``backbone`` is loaded as ``checkpoint/PATH``, its ``head`` by `embedpipe.load_head`.

    Raises
    ------
    UsageError
        If an argument is wrong, the head is not linear, or the folder is of another run.
    TrainingDataError
        If there is too little to learn from, or the pictures are not those that were embedded.
    SpecMismatchError
        If the head is of another backbone than the store.
    BackboneError
        If the network cannot be loaded or trained.

    Examples
    --------
    >>> embedpipe.finetune("photos.features", "photos.head", to="photos.tuned")  # doctest: +SKIP
    """
    chosen, split_options, reload_options = build_options(OPTIONS, options)
    workers = Workers.launched(device)
    with contextlib.ExitStack() as alone:

        def opened() -> tuple[str, str, Path]:
            folder = place.check_folder(to)
            alone.enter_context(working_alone(folder))
            features = folder / place.FEATURES
            store, name = open_images(source, features, label, backbone, device, progress, reload_options)
            return store.path, name, folder

        path, label, folder = workers.from_first(opened)
        store = FeatureStore(path)
        given = None if head is None else open_probe(head, store)
        split = read_split_rows(store, given.label if given else label, split_options)
        probe = workers.from_first(lambda: given or usual_probe(store, label, split))
        stored = aligned(linear_of(probe), split.classes)
        key = _key(store, stored, split, chosen)
        done = workers.from_first(lambda: place.read_result(folder))
        if done is None:
            frozen = load_frozen(probe.spec, reload_options, workers.device or device)
            show = Progress(progress if workers.first else False, detail=True)
            found = _hand_off(probe, stored, frozen, split, store, folder, chosen, key, workers, show, on_epoch)
            found.notes += _seen(given, store)
            if workers.first:
                place.write_result({"key": key, **found.to_dict()}, folder)
                (folder / place.STATE).unlink(missing_ok=True)
            workers.wait()  # all may read what the first has written
            return found
    if done.pop("key") != key:
        raise UsageError(f"{str(folder)!r} holds a run of other data or options: name another folder (--to)")
    return place.hand_off_of(done, folder)


def _hand_off(
    probe: Head,
    stored: LinearHead,
    frozen: ImageBackbone,
    split: SplitRows,
    store: FeatureStore,
    folder: Path,
    options: FineTuneOptions,
    key: str,
    workers: Workers,
    progress: Progress,
    on_epoch: OnEpoch | None,
) -> FineTuneResult:
    """Train, from where a killed run was, and write weights, head and splits."""
    X = read_finite(store, probe.spec.layers, split.ids)
    learned = np.sort(np.concatenate([split.train, split.validation]))
    start, usual = workers.from_first(lambda: [fitted_anew(probe, X, split, rows) for rows in (split.train, learned)])
    images = image_set_of(split, frozen, options.seed)
    network = ClassifierNetwork(frozen, stored, options.batch_norm, options.lora, options.seed)
    trainer = Trainer(
        network,
        images,
        split.y,
        split.train,
        split.validation,
        options,
        state=folder / place.STATE,
        key=key,
        softened=SOFTENED,
        workers=workers,
        on_epoch=on_epoch if workers.first else None,
    )
    step_zero = _step_zero(trainer, stored, X, split)
    network.put_head(start)
    run = trainer.fit(progress)
    if not run.best.number:  # the probe was better, and may have the validation rows, too
        network.put_head(usual)
    rows, logits = trainer.logits(split.test)
    images.require(len(rows), len(split.test), "test")
    if workers.first:
        place.save_backbone(trainer.last_state, frozen.spec, folder / place.LAST)
        place.save_backbone(network.network.module.state_dict(), frozen.spec, folder / place.BEST)
        _save_head(probe, trainer, rows, logits, split, folder)
        _divided(split).save(folder / place.SPLITS)
    left_out: dict[str, str] = {}
    for share in workers.gathered(images.left_out):
        left_out |= share
    return FineTuneResult(
        folder=str(folder),
        backbone=str(folder / place.BEST),
        head=str(folder / place.HEAD),
        epochs=run.epochs,
        best=run.best.number,
        step_zero=step_zero,
        test=_measure(rows, logits, usual, X, split),
        train=len(split.train),
        validation=len(split.validation),
        splits_id=split.splits.identity,
        seconds=sum(epoch.seconds for epoch in run.epochs),
        device=f"{workers.count} x {trainer.device.type}" if workers.count > 1 else str(trainer.device),
        precision=trainer.precision,
        augmentation=trainer.augmentation,
        failed=left_out,
        notes=list(split.splits.notes),
    )


def _seen(head: Head | None, store: FeatureStore) -> list[str]:
    """Say whether a head's choices may know the test rows."""
    if head is None or (head.is_of(store) and head.report.measured_on == "test" and not head.report.fine_tuned):
        return []
    return [
        "the head's penalty and temperature were chosen before, perhaps on test rows too: without --head they are not"
    ]


def _key(store: FeatureStore, stored: LinearHead, split: SplitRows, options: FineTuneOptions) -> str:
    """Return what makes a run what it is, as one number: data, labels, split, head and options."""
    digest = hashlib.sha256(json.dumps([store.spec.fingerprint(), dataclasses.asdict(options)]).encode())
    digest.update(json.dumps([split.ids.to_pylist(), split.hashes, split.classes.tolist()]).encode())
    for values in (split.y, split.train, split.validation, split.test, stored.weight, stored.bias):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _step_zero(trainer: Trainer, stored: LinearHead, X: npt.NDArray[np.float32], split: SplitRows) -> StepZero:
    """Hold the network against the stored head on the validation rows, before any training."""
    rows, logits = trainer.logits(split.validation)
    trainer.images.require(len(rows), len(split.validation), "validation")
    expected = stored.logits(X[rows])
    right, network = (float((each.argmax(axis=1) == split.y[rows]).mean()) for each in (expected, logits))
    # Only differences of logits count.
    apart = np.abs((logits - logits.mean(1, keepdims=True)) - (expected - expected.mean(1, keepdims=True)))
    if abs(right - network) > SAME + 1 / len(rows):
        raise TrainingDataError(
            f"the stored head is right on {right:.1%} of {len(rows)} validation rows, and the network that begins with "
            f"it on {network:.1%}: it does not see what was embedded. Is it the right --weights? If pictures or "
            "embedpipe have changed, embed again"
        )
    return StepZero(right, network, float(apart.max()), len(rows))


def _divided(split: SplitRows) -> Splits:
    """Return the division that was trained by, for comparing the network with others on rows that it has not seen."""
    train = np.sort(np.concatenate([split.train, split.validation]))
    tune = [(np.searchsorted(train, split.train), np.searchsorted(train, split.validation))]
    one = dataclasses.replace(split.splits.resamples[0], train=train, test=split.test, tune=tune)
    notes = ["one division: the network was trained on all other rows"]
    return dataclasses.replace(
        split.splits, resamples=[one], description="test rows of a fine-tuned network", notes=notes
    )


def _measure(rows: Rows, logits: Floats, usual: LinearHead, X: npt.NDArray[np.float32], split: SplitRows) -> Measured:
    """Hold the trained network against a head that learned from the same labels, on the test rows."""
    probe, tuned = (each.argmax(axis=1) == split.y[rows] for each in (usual.logits(X[rows]), logits))
    both, first, second = ((probe & tuned).sum(), (probe & ~tuned).sum(), (tuned & ~probe).sum())
    low, high = paired_interval(int(both), int(first), int(second), int((~probe & ~tuned).sum()), 0.95)
    difference = float(tuned.mean() - probe.mean())
    return Measured(len(rows), float(probe.mean()), float(tuned.mean()), difference, low, high)


def _save_head(probe: Head, trainer: Trainer, rows: Rows, logits: Floats, split: SplitRows, folder: Path) -> None:
    """Save the network's last layer as a head of the backbone that the rest of it has become."""
    network, weights = trainer.network, folder / place.BEST
    arch = place.architecture(probe.spec)
    options = BackboneOptions(
        backbone=f"checkpoint/{weights}",
        arch=arch if arch.startswith("python:") else None,
        layer=tuple(layer.name for layer in probe.spec.layers),
    )
    spec = dataclasses.replace(load_with_options(options, "cpu").spec, layers=probe.spec.layers)
    linear = network.head(split.classes)
    report = FitReport("classification", "test", len(split.train), fine_tuned=True)
    # Its vectors are not at hand, and its logits say all.
    given = LinearHead(np.eye(len(split.classes)), np.zeros(len(split.classes)), split.classes, unit=False)
    y = split.classes[np.concatenate([split.y[split.train], split.y[rows]])]
    values = np.concatenate([np.zeros((len(split.train), logits.shape[1])), logits])
    measured = (np.arange(len(split.train)), np.arange(len(split.train), len(y)))
    measure(estimator_of(given), values, y, [measured], report, lambda _, __: estimator_of(given), lambda count=1: None)
    Head(
        name="fine-tuned",
        estimator=estimator_of(linear),
        spec=spec,
        label=probe.label,
        store=probe.store,
        store_id=probe.store_id,
        store_version=probe.store_version,
        report=report,
    ).save(folder / place.HEAD)
