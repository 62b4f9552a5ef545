"""The epochs of a training run, and which of them is selected."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Epoch:
    """The losses and the validation metrics of one epoch.

    Attributes
    ----------
    number : int
        Starts at 1; 0 is the network before training.
    training_loss : float, optional
        Mean cross-entropy of the training rows during the epoch, with augmentation and dropout, in nats; None for
        epoch 0.
    validation_accuracy, validation_log_loss : float
        On the validation rows after the epoch; the loss in nats.
    items : int
        Number of training images or texts.
    seconds : float
        Wall time of training and validation.
    """

    number: int
    training_loss: float | None
    validation_accuracy: float
    validation_log_loss: float
    items: int
    seconds: float

    @property
    def quality(self) -> tuple[float, float]:
        """What orders epochs: the validation accuracy, and of equal ones the lower log-loss."""
        return self.validation_accuracy, -self.validation_log_loss


@dataclass
class Run:
    """The progress of a training run.

    Attributes
    ----------
    epochs : list of Epoch
        The finished epochs, from epoch 0 on.
    near : int
        Number of the latest epoch whose validation accuracy is within one standard error of the highest.
    candidate : int
        The same, or an earlier one of the same accuracy and a lower log-loss.
    batches : int
        Finished batches of the current epoch; ``loss`` is the sum over its ``items``, ``seconds`` its time so far.
    finished : bool
        Whether all epochs are done or the run has stopped early.
    """

    epochs: list[Epoch] = field(default_factory=list)
    near: int = 0
    candidate: int = 0
    batches: int = 0
    loss: float = 0.0
    items: int = 0
    seconds: float = 0.0
    finished: bool = False

    def __post_init__(self) -> None:
        self.near = max(self.near, self.candidate)  # states of version 0.2.0 have one number

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept: the candidate, or epoch 0 where it is better."""
        candidate, before = self.epochs[self.candidate], self.epochs[0]
        return candidate if candidate.quality >= before.quality else before

    def is_exhausted(self, patience: int) -> bool:
        """Return whether so many epochs in a row were not near the best."""
        return self.epochs[-1].number - self.near >= patience

    def add(self, epoch: Epoch, rows: int) -> None:
        """Add an epoch that was measured on ``rows`` validation rows.

        An epoch becomes the candidate if its accuracy is below the highest by at most the standard error of their
        difference. The latest such epoch is used because the learning rate is lower by then; of equal accuracies the
        one with the lower log-loss. Only this epoch is compared with epoch 0: the best of several epochs would beat it
        by chance.
        """
        self.epochs.append(epoch)
        highest = max(epoch.validation_accuracy for epoch in self.epochs)
        if epoch.validation_accuracy >= highest - math.sqrt(2 * highest * (1 - highest) / rows):
            self.near = epoch.number
            held = self.epochs[self.candidate]
            if epoch.validation_accuracy != held.validation_accuracy or epoch.quality >= held.quality:
                self.candidate = epoch.number
