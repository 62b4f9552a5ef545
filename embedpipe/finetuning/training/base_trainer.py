"""What trainers share: the network is measured, trained epoch by epoch, and left with the weights of the best one."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch import Tensor

from embedpipe._utils.progress import Advance, Progress, uncounted
from embedpipe.errors import BackboneError
from embedpipe.finetuning.options import FineTuneOptions
from embedpipe.finetuning.training.classifier_network import ClassifierNetwork
from embedpipe.finetuning.training.epochs import Epoch, Run
from embedpipe.finetuning.training.items.item_set import ItemSet, Rows
from embedpipe.statistics import log_losses
from embedpipe.statistics.percentages import percent

OnEpoch = Callable[[Sequence[Epoch]], None]
#: Seconds between two states on disk, and so the most work that a kill loses. A state may take longer than an epoch.
SAVE_SECONDS = 60.0
#: Norm to which longer gradients are cut.
MAX_GRADIENT_NORM = 1.0


class BaseTrainer(ABC):
    """Trains a network on the training rows and selects the weights to keep on the validation rows.

    Parameters
    ----------
    network : ClassifierNetwork
        Is trained in place; `fit` leaves it with the selected weights.
    items : ItemSet
    y : int64 array (n_samples,)
        Class numbers of all rows.
    train, validation : int64 array
        Positions of rows.
    options : FineTuneOptions
    state : path, optional
        Where the state of the run is kept, from which `fit` continues if there is one.
    settings : dict
        What the run depends on; a state with others is refused.
    on_epoch : callable, optional
        Called after each epoch with all epochs so far.

    Attributes
    ----------
    run : Run
    last_state : dict
        After `fit`: the weights of the backbone after the last epoch.
    device : torch.device
    precision, augmentation : str
    """

    def __init__(
        self,
        network: ClassifierNetwork,
        items: ItemSet,
        y: npt.NDArray[np.int64],
        train: Rows,
        validation: Rows,
        options: FineTuneOptions,
        *,
        state: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.network, self.items, self.options = network, items, options
        self._y, self._train, self._validation, self._on_epoch = y, train, validation, on_epoch
        self._state, self._settings = state, dict(settings or {})
        self.device = network.last.weight.device
        self.augmentation = options.augmentation(len(train), items.modality)
        self.precision = options.train_precision or default_precision(self.device)
        if options.freeze_until is not None:
            network.freeze_before(options.freeze_until)
        self._candidate_weights: dict[str, Tensor] = {}
        self.last_state: dict[str, Tensor] = {}
        self.run = Run()

    def fit(self, progress: Progress) -> Run:
        """Train, or continue the run of the state, and leave the network with the selected weights.

        Raises
        ------
        TrainingDataError
            If no training or no validation item can be read, or the loss is not finite.
        UsageError
            If the state is damaged or of another run.
        BackboneError
            If the device has too little memory.
        """
        before = self._weights()
        self._resume()
        with self._naming_memory():
            if not self.run.epochs:
                rows = len(self._validation)
                with progress.step("measuring the network before training", rows, self.items.noun) as advance:
                    self._finish_epoch(None, advance=advance)
            elif self._on_epoch is not None:
                self._on_epoch(self.run.epochs)
            if not self.run.finished:
                self._train_epochs(progress)
        self.last_state = self.network.backbone_state()
        self.network.load_state_dict(self._candidate_weights if self.run.best.number else before)
        return self.run

    def logits(self, rows: Rows, advance: Advance = uncounted) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return the rows whose items can be read, and their logits, float64 (n, n_classes).

        ``advance`` is told how many rows were read, those of the other processes included. Raises BackboneError if the
        device has too little memory.
        """
        with self._naming_memory():
            return self._logits(rows, advance)

    @contextlib.contextmanager
    def _naming_memory(self) -> Iterator[None]:
        """Raise BackboneError, with what to change, if the device has too little memory for the block."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            batch = f"{self.options.batch_size} {self.items.noun}"
            raise BackboneError(f"{self.device} has too little memory for {self._less_memory(batch)}") from error

    @abstractmethod
    def _logits(self, rows: Rows, advance: Advance) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return what `logits` does."""

    @abstractmethod
    def _resume(self) -> None:
        """Read the state of an interrupted run, if there is one."""

    @abstractmethod
    def _train_epochs(self, progress: Progress) -> None:
        """Train until the run is finished, with `_finish_epoch` after each epoch."""

    @abstractmethod
    def _less_memory(self, batch: str) -> str:
        """Return what to change where a batch does not fit."""

    def _keep_state(self) -> None:  # noqa: B027 - not all trainers keep one here
        """Write the state of the run after an epoch, if it is time to."""

    def _finish_epoch(
        self, training_loss: float | None, items: int = 0, seconds: float = 0.0, advance: Advance = uncounted
    ) -> None:
        """Measure the network on the validation rows, and keep the weights of a candidate.

        ``seconds`` are those of the training of ``items``; the time of measuring is added.
        """
        run, start = self.run, time.monotonic()
        rows, logits = self.logits(self._validation, advance)
        self.items.require(len(rows), len(self._validation), "validation")
        if run.epochs:
            self.items.require(items, len(self._train), "training")
        y = self._y[rows]
        accuracy = float((logits.argmax(axis=1) == y).mean())
        loss = float(log_losses(softmax(logits, axis=1), y).mean())
        elapsed = seconds + time.monotonic() - start
        epoch = Epoch(len(run.epochs), training_loss, accuracy, loss, items, elapsed)
        run.add(epoch, len(rows))
        run.batches, run.loss, run.items, run.seconds = 0, 0.0, 0, 0.0
        if run.candidate == epoch.number > 0:  # `fit` holds the weights before training
            self._candidate_weights = self._weights()
        run.finished = run.is_exhausted(self.options.patience) or epoch.number >= self.options.epochs
        self._keep_state()
        if self._on_epoch is not None:
            self._on_epoch(run.epochs)

    def _say_epoch(self, progress: Progress) -> None:
        """Show the last epoch."""
        last = self.run.epochs[-1]
        progress.say(
            f"epoch {last.number} of {self.options.epochs}: loss {last.training_loss:.4f}, validation accuracy "
            f"{percent(last.validation_accuracy)}, log-loss {last.validation_log_loss:.4f}"
            f"{', kept so far' * (self.run.best is last)}"
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}


def default_precision(device: torch.device) -> str:
    """Return bf16 on a GPU that supports it, else fp32."""
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
