"""What a hand-off came to: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to.

    Attributes
    ----------
    number : int
        From 1 on; 0 is the network before any training.
    training_loss : float, optional
        Mean cross-entropy of the augmented pictures while the network changed, in nats; None for epoch 0.
    accuracy, log_loss : float
        On the validation rows, as a share and in nats.
    images : int
        Trained on.
    seconds : float
        Of training and measuring.
    """

    number: int
    training_loss: float | None
    accuracy: float
    log_loss: float
    images: int
    seconds: float


@dataclass(frozen=True)
class StepZero:
    """The stored head beside the network that begins with it, on the validation rows.

    Attributes
    ----------
    stored, network : float
        Accuracy of the stored head on stored vectors, and of the network on the pictures.
    largest : float
        Largest difference of a logit.
    rows : int
    """

    stored: float
    network: float
    largest: float
    rows: int


@dataclass(frozen=True)
class Measured:
    """Accuracy on the test rows, read once, after all training.

    Attributes
    ----------
    rows : int
    probe, tuned : float
        Of the head on frozen features, fitted on the training and validation rows, and of the trained network.
    difference, low, high : float
        Tuned less probe, with the ends of its 95 % interval (Newcombe 1998, method 10, for paired shares).
    """

    rows: int
    probe: float
    tuned: float
    difference: float
    low: float
    high: float


@dataclass
class FineTuneResult:
    """A finished hand-off.

    Attributes
    ----------
    folder, backbone, head : str
        Where it lies; the weights that ``checkpoint/PATH`` loads; the folder of the head on its features.
    epochs : list of Epoch
    best : int
        Number of the epoch whose weights were kept: 0 where the probe was better on the validation rows.
    step_zero : StepZero
    test : Measured
    train, validation : int
        Rows.
    splits_id : str
        SHA-256 over the ids and roles of the splits, as `embedpipe.evaluate` gives it.
    seconds : float
        Of all epochs.
    device, precision, augmentation : str
    failed : dict
        Pictures that were left out -> why.
    notes : list of str
    """

    folder: str
    backbone: str
    head: str
    epochs: list[Epoch]
    best: int
    step_zero: StepZero
    test: Measured
    train: int
    validation: int
    splits_id: str
    seconds: float
    device: str
    precision: str
    augmentation: str
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuneResult:
        """Read what `to_dict` gave."""
        parts = {
            "epochs": [Epoch(**one) for one in values["epochs"]],
            "step_zero": StepZero(**values["step_zero"]),
            "test": Measured(**values["test"]),
        }
        return cls(**{**values, **parts})
