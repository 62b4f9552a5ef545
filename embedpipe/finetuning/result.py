"""`FineTuneResult`: what `embedpipe.finetune` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.finetuning.training.epochs import Epoch
from embedpipe.sources.options import Modality
from embedpipe.statistics.percentages import percent


@dataclass(frozen=True)
class InitialCheck:
    """Comparison of the head on stored features with the untrained network, on the validation rows.

    Attributes
    ----------
    head_accuracy, network_accuracy : float
    largest_logit_difference : float
    rows : int
        Number of validation rows.
    """

    head_accuracy: float
    network_accuracy: float
    largest_logit_difference: float
    rows: int


@dataclass(frozen=True)
class ProbeComparison:
    """Accuracy of the linear probe and of the fine-tuned network on the test rows, after training.

    Attributes
    ----------
    rows : int
        Number of test rows.
    linear_probe, finetuned : float
        Accuracy of the probe, fitted on the training and validation rows, and of the network.
    difference, low, high : float
        ``finetuned - linear_probe`` and its 95 % interval (Newcombe 1998, method 10, for paired proportions).
    """

    rows: int
    linear_probe: float
    finetuned: float
    difference: float
    low: float
    high: float


@dataclass(repr=False)
class FineTuneResult:
    """The result of `embedpipe.finetune`: the files it wrote, the epochs, and the accuracy on the test rows.

    Attributes
    ----------
    folder : str
        Folder of the run.
    backbone : str
        The trained weights: a file, or for ``sentence-transformers`` and ``transformers`` a model's folder.
    provider : str
        What loads it, such as ``checkpoint``.
    modality : str
        ``image`` or ``text``.
    head : str
        Folder of the head on the trained backbone's features; `embedpipe.load_head` reads it.
    epochs : list of Epoch
        From epoch 0, the network before training, on.
    best_epoch : int
        Number of the epoch whose weights were kept; 0 if the linear probe was better on the validation rows.
    initial_check : InitialCheck
        Whether the untrained network reproduces the head.
    test : ProbeComparison
        Accuracy on the test rows, which are read once, after training.
    train_rows, validation_rows : int
        Number of rows.
    splits_id : str
        SHA-256 of the ids and their splits, as `embedpipe.evaluate` gives it.
    seconds : float
        Wall time of all epochs.
    device, precision, augmentation : str
        What the network was trained on and with.
    failed : dict of str to str
        Id of an item that was left out -> reason.
    notes : list of str

    See Also
    --------
    embedpipe.finetune : Makes it.

    Examples
    --------
    >>> from embedpipe.finetuning.result import Epoch, InitialCheck, ProbeComparison
    >>> result = FineTuneResult(
    ...     folder="photos.tuned",
    ...     backbone="photos.tuned/backbone.safetensors",
    ...     head="photos.tuned/head",
    ...     epochs=[Epoch(0, None, 0.84, 0.6, 0, 2.0), Epoch(1, 0.7, 0.89, 0.5, 1200, 40.0)],
    ...     best_epoch=1,
    ...     initial_check=InitialCheck(0.84, 0.84, 1e-5, 300),
    ...     test=ProbeComparison(372, 0.85, 0.89, 0.04, 0.012, 0.068),
    ...     train_rows=1200,
    ...     validation_rows=300,
    ...     splits_id="ab12",
    ...     seconds=42.0,
    ...     device="cpu",
    ...     precision="fp32",
    ...     augmentation="light",
    ... )
    >>> result
    FineTuneResult('photos.tuned': epoch 1 of 1, test accuracy 89.0 %, linear probe 85.0 %)
    >>> result.to_dict()["test"]["difference"]
    0.04
    """

    folder: str
    backbone: str
    head: str
    epochs: list[Epoch]
    best_epoch: int
    initial_check: InitialCheck
    test: ProbeComparison
    train_rows: int
    validation_rows: int
    splits_id: str
    seconds: float
    device: str
    precision: str
    augmentation: str
    provider: str = "checkpoint"
    modality: Modality = "image"
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def backbone_name(self) -> str:
        """The trained backbone for `embedpipe.embed`, such as ``checkpoint/photos.tuned/backbone.safetensors``."""
        return f"{self.provider}/{self.backbone}"

    def __repr__(self) -> str:
        """Return the folder, the kept epoch, and the accuracies on the test rows."""
        return (
            f"FineTuneResult({self.folder!r}: epoch {self.best_epoch} of {self.epochs[-1].number}, "
            f"test accuracy {percent(self.test.finetuned)}, linear probe {percent(self.test.linear_probe)})"
        )

    def _repr_html_(self) -> str:
        test = self.test
        rows = {"kept epoch": f"{self.best_epoch} of {self.epochs[-1].number}"}
        if self.best_epoch:  # else the test accuracy is that of the linear probe
            rows |= {
                "test accuracy": f"{percent(test.finetuned)} of {test.rows:,} rows",
                "linear probe": f"{percent(test.linear_probe)}",
                "difference": (
                    f"{100 * test.difference:+z.1f} points (95 % interval {100 * test.low:+z.1f} to "
                    f"{100 * test.high:+z.1f})"
                ),
            }
        else:
            rows["test accuracy"] = f"{percent(test.linear_probe)} of {test.rows:,} rows: the linear probe was kept"
        rows |= {
            "rows": f"{self.train_rows:,} for training, {self.validation_rows:,} for validation",
            "training": f"{self.seconds:,.0f} s on {self.device} in {self.precision}",
            "backbone": self.backbone,
            "head": self.head,
        }
        return html_table("FineTuneResult", rows)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuneResult:
        """Make a result from what `to_dict` returned."""
        parts = {
            "epochs": [Epoch(**epoch) for epoch in values["epochs"]],
            "initial_check": InitialCheck(**values["initial_check"]),
            "test": ProbeComparison(**values["test"]),
        }
        return cls(**{**values, **parts})

    def to_html(self, path: str | Path) -> Path:
        """Write a page with the learning curves and the test accuracy; it loads nothing from the network.

        Parameters
        ----------
        path : str or path-like
            An .html file. Missing folders are made.

        Raises
        ------
        UsageError
            If the file's name does not end in .html.
        """
        from embedpipe.finetuning.training.page import write_training_page

        return write_training_page(
            path, self.epochs, self.epochs[-1].number, Path(self.folder).name, result=self.to_dict()
        )
