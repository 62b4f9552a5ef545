"""`FineTuneRun`: the steps of one fine-tuning, from the linear probe to the files in its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones import load_with_options
from embedpipe.backbones.backbone import Backbone
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import TrainingDataError
from embedpipe.estimators.solvers.column_stats import Floats
from embedpipe.finetuning import run_folder
from embedpipe.finetuning.linear_probe import fit_on_vectors, refit_probe
from embedpipe.finetuning.options import FineTuneOptions, Method
from embedpipe.finetuning.result import FineTuneResult, InitialCheck, ProbeComparison
from embedpipe.finetuning.source import open_item_set
from embedpipe.finetuning.split_rows import Rows, SplitRows
from embedpipe.finetuning.training.base_trainer import BaseTrainer, OnEpoch
from embedpipe.finetuning.training.classifier_network import SOFTENING, ClassifierNetwork
from embedpipe.finetuning.training.contrastive import ContrastiveTrainer
from embedpipe.finetuning.training.distributed import Workers
from embedpipe.finetuning.training.trainer import Trainer
from embedpipe.heads import Head
from embedpipe.heads.conversion.linear_head import LinearHead
from embedpipe.heads.scoring import FitReport, measure_logits
from embedpipe.heads.training.vectors import read_finite
from embedpipe.splits.splits import Splits
from embedpipe.statistics import paired_interval
from embedpipe.statistics.percentages import percent
from embedpipe.store import FeatureStore

#: Largest allowed difference in validation accuracy between the head on stored features and the network before
#: training. A larger one means that the network does not see the images that were embedded.
ACCURACY_TOLERANCE = 0.01


@dataclass(frozen=True)
class FineTuneRun:
    """What one fine-tuning starts from, and its steps.

    Parameters
    ----------
    store : FeatureStore
    split : SplitRows
    probe : Head
        The linear probe, whose penalty and temperature are used.
    initial : LinearHead
        The same as one layer, with the classes of the training rows.
    frozen : Backbone
    folder : Path
        Of the run.
    method : str
    options : FineTuneOptions
    settings : dict
        What the run depends on; an interrupted one with others is refused.
    workers : Workers
    progress : Progress
    on_epoch : callable, optional
    """

    store: FeatureStore
    split: SplitRows
    probe: Head
    initial: LinearHead
    frozen: Backbone
    folder: Path
    method: Method
    options: FineTuneOptions
    settings: dict[str, Any]
    workers: Workers
    progress: Progress
    on_epoch: OnEpoch | None

    def train(self) -> FineTuneResult:
        """Train, or continue an interrupted run, and write weights, head and splits."""
        with self.progress.step("fitting the linear probe again"):
            start, full = self.workers.from_first(self._refit_probe)
        trainer = self._make_trainer()
        initial_check = self._check_initial_network(trainer)
        trainer.network.set_head(start)
        run = trainer.fit(self.progress)
        if not run.best.number:  # the linear probe was better: use the one with all labels
            trainer.network.set_head(full)
        rows, logits = self._measure(trainer)
        best = self._weights_path(run_folder.BEST)
        if self.workers.first:
            self._save(trainer, rows, logits)
        failed: dict[str, str] = {}
        for failures in self.workers.gather(trainer.items.left_out):
            failed |= failures
        count = self.workers.count
        return FineTuneResult(
            folder=str(self.folder),
            backbone=str(best),
            provider=run_folder.provider_of_weights(self.frozen.spec),
            modality=self.frozen.spec.modality,
            head=str(self.folder / run_folder.HEAD),
            epochs=run.epochs,
            best_epoch=run.best.number,
            initial_check=initial_check,
            test=self._compare_with_probe(rows, logits, full),
            train_rows=len(self._without(failed, self.split.train)),
            validation_rows=len(self._without(failed, self.split.validation)),
            splits_id=self.split.splits.identity,
            seconds=sum(epoch.seconds for epoch in run.epochs),
            device=f"{count} x {trainer.device.type}" if count > 1 else str(trainer.device),
            precision=trainer.precision,
            augmentation=trainer.augmentation,
            failed=failed,
            notes=[*random_notes([self.store.spec]), *self.split.splits.notes, *self._unread_classes(failed)],
        )

    def _without(self, failed: Mapping[str, str], rows: Rows) -> Rows:
        """Return the rows whose items could be read; ``failed`` has the ids of the others."""
        ids = self.split.ids.take(pa.array(rows)).to_pylist()
        read: Rows = rows[np.array([id not in failed for id in ids], bool)]
        return read

    def _unread_classes(self, failed: Mapping[str, str]) -> list[str]:
        """Return a note if there are classes of which no training item could be read: the network forgets them."""
        split = self.split
        unread = np.setdiff1d(split.y[split.train], split.y[self._without(failed, split.train)])
        names = ", ".join(repr(name) for name in split.classes[unread].tolist())
        return [f"no training {self.frozen.spec.modality} of {names} could be read"] if len(unread) else []

    @cached_property
    def _features(self) -> npt.NDArray[np.float32]:
        """The stored features of all rows."""
        return read_finite(self.store, self.probe.spec.layers, self.split.ids)

    @property
    def _learned(self) -> Rows:
        """The training and validation rows."""
        return np.sort(np.concatenate([self.split.train, self.split.validation]))

    def _refit_probe(self) -> list[LinearHead]:
        """Return the head on the training rows, from which the network starts, and the one with the validation rows.

        The test rows compare the network with the second.
        """
        return [refit_probe(self.probe, self._features, self.split, rows) for rows in (self.split.train, self._learned)]

    def _make_trainer(self) -> BaseTrainer:
        split, options = self.split, self.options
        network = ClassifierNetwork(self.frozen, self.initial, options.batch_norm, options.lora, options.seed)
        data = open_item_set(split, self.frozen, options.seed), split.y, split.train, split.validation, options
        common: dict[str, Any] = {
            "state": self.folder / run_folder.STATES[self.method],
            "settings": self.settings,
            "on_epoch": self.on_epoch if self.workers.first else None,
        }
        if self.method == "contrastive":
            return ContrastiveTrainer(network, *data, self._fit_head, **common)
        return Trainer(network, *data, softening=SOFTENING, workers=self.workers, **common)

    def _fit_head(self, vectors: npt.NDArray[np.float32], rows: Rows) -> LinearHead:
        return fit_on_vectors(self.probe, vectors, self.split, rows)

    def _check_initial_network(self, trainer: BaseTrainer) -> InitialCheck:
        """Compare the network before training with the head on stored features, on the validation rows."""
        validation, noun = self.split.validation, trainer.items.noun
        with self.progress.step("checking the network before training", len(validation), noun) as advance:
            rows, logits = trainer.logits(validation, advance)
        trainer.items.require(len(rows), len(validation), "validation")
        expected = self.initial.logits(self._features[rows])
        head_accuracy, network_accuracy = (
            float((values.argmax(axis=1) == self.split.y[rows]).mean()) for values in (expected, logits)
        )
        # Softmax does not change if a constant is added to all logits of a row, so each row is centred.
        differences = np.abs((logits - logits.mean(1, keepdims=True)) - (expected - expected.mean(1, keepdims=True)))
        if abs(head_accuracy - network_accuracy) > ACCURACY_TOLERANCE + 1 / len(rows):
            raise TrainingDataError(
                f"before training, the network must be as accurate as the head on stored features: on {len(rows)} "
                f"validation rows the network has {percent(network_accuracy)} and the head {percent(head_accuracy)}. "
                f"Check {option('weights', ...)}; if the items or embedpipe have changed, embed again"
            )
        return InitialCheck(head_accuracy, network_accuracy, float(differences.max()), len(rows))

    def _measure(self, trainer: BaseTrainer) -> tuple[Rows, Floats]:
        """Return the test rows whose items can be read, and their logits."""
        test, noun = self.split.test, trainer.items.noun
        with self.progress.step("measuring on the test rows", len(test), noun) as advance:
            rows, logits = trainer.logits(test, advance)
        trainer.items.require(len(rows), len(test), "test")
        return rows, logits

    def _compare_with_probe(self, rows: Rows, logits: Floats, full: LinearHead) -> ProbeComparison:
        """Compare the network with a linear probe that was fitted on the same labels, on the test rows."""
        y, expected = self.split.y[rows], full.logits(self._features[rows])
        probe, tuned = (values.argmax(axis=1) == y for values in (expected, logits))
        both, probe_only = int((probe & tuned).sum()), int((probe & ~tuned).sum())
        tuned_only, neither = int((tuned & ~probe).sum()), int((~probe & ~tuned).sum())
        low, high = paired_interval(both, probe_only, tuned_only, neither, 0.95)
        difference = float(tuned.mean() - probe.mean())
        return ProbeComparison(len(rows), float(probe.mean()), float(tuned.mean()), difference, low, high)

    def _weights_path(self, name: str) -> Path:
        return run_folder.weights_path(self.frozen.spec, self.folder, name)

    def _save(self, trainer: BaseTrainer, rows: Rows, logits: Floats) -> None:
        """Write the weights of the last and the best epoch, the head on the latter, and the splits."""
        run_folder.save_backbone(trainer.last_state, self.frozen, self._weights_path(run_folder.LAST))
        best = trainer.network.network.module.state_dict()
        run_folder.save_backbone(best, self.frozen, self._weights_path(run_folder.BEST))
        self._make_head(trainer, rows, logits).save(self.folder / run_folder.HEAD)
        self._test_splits().save(self.folder / run_folder.SPLITS)

    def _make_head(self, trainer: BaseTrainer, rows: Rows, logits: Floats) -> Head:
        """Return the last layer of the network as a head on the features of the trained backbone."""
        split, probe = self.split, self.probe
        options = run_folder.options_of_weights(probe.spec, self._weights_path(run_folder.BEST))
        spec = dataclasses.replace(load_with_options(options, "cpu").spec, layers=probe.spec.layers)
        report = FitReport("classification", "test", len(split.train), fine_tuned=True)
        y_test, y_train = (split.classes[split.y[part]] for part in (rows, split.train))
        measure_logits(logits, y_test, y_train, split.classes, report)
        return Head(
            name="fine-tuned",
            estimator=trainer.network.head(split.classes).to_estimator(),
            spec=spec,
            label=probe.label,
            store=probe.store,
            store_id=probe.store_id,
            store_version=probe.store_version,
            report=report,
        )

    def _test_splits(self) -> Splits:
        """Return the split of the run, to compare the network with others on its test rows."""
        split, train = self.split, self._learned
        tune = [(np.searchsorted(train, split.train), np.searchsorted(train, split.validation))]
        resample = dataclasses.replace(split.splits.resamples[0], train=train, test=split.test, tune=tune)
        notes = ["one split: the network was trained on all other rows"]
        return dataclasses.replace(
            split.splits, resamples=[resample], description="test rows of a fine-tuned network", notes=notes
        )
