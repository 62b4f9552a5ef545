"""The result of one candidate: metrics, calibration, confusions, curves, the most confident errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embedpipe.report.wrong_items import WrongItem
from embedpipe.statistics import Difference, Estimate, unseen_share


@dataclass(frozen=True)
class Reliability:
    """Calibration of the probabilities of a head, pooled over rows that it was not fitted on.

    Attributes
    ----------
    confidence, accuracy, rows : list
        For each bin that has rows, in ascending order: mean probability of the predicted class, share of correct
        predictions, and number of rows.
    ece : float
        Expected calibration error over bins of equal width.
    ece_debiased : float
        ``ece`` minus its estimated bias, from 0 to ``ece``; see `embedpipe.statistics.calibration_errors`.
    brier, log_loss : float
    """

    confidence: list[float]
    accuracy: list[float]
    rows: list[int]
    ece: float
    ece_debiased: float
    brier: float
    log_loss: float

    @property
    def smallest_error(self) -> float:
        """The smallest calibration error that so many rows can show; see `embedpipe.statistics.unseen_share`."""
        return unseen_share(sum(self.rows))


@dataclass(frozen=True)
class RiskCoverage:
    """Error rate as a function of the share of rows that are answered, the most certain rows first.

    Attributes
    ----------
    signal : str
        The score that orders the rows: ``probability`` of the predicted class, or ``distance`` to the training rows.
    coverage, risk : list of float
        Share of the rows that are answered, ascending to 1, and the error rate among those.
    area : float
        Area under the curve (AURC); smaller is better.
    """

    signal: str
    coverage: list[float]
    risk: list[float]
    area: float


@dataclass(frozen=True)
class ClassScores:
    """Number of rows, precision, recall and F1 of one class."""

    name: str
    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(repr=False)
class CandidateResult:
    """Result of one candidate: a head on the vectors of one or several layers of a store.

    ``per_class``, ``confusion``, ``wrong``, ``calibration``, ``calibrated`` and ``rejection`` count rows of the first
    repeat, in which each row is predicted once.

    Attributes
    ----------
    name : str
        Unique within the evaluation, and as short as possible: ``logreg``, ``logreg on features``.
    store, backbone : str
        Path of the store; provider and name of the backbone.
    layers : tuple of str
        Names of the layers whose vectors are concatenated, in this order.
    head : str
        Name of the head.
    dim : int
        Length of the vectors.
    metrics : dict
        Metric -> list of values, one for each resample.
    estimates : dict
        Metric -> mean with 95 % interval.
    difference : Difference or None
        Paired difference from the best candidate; None for the best.
    calibration : Reliability or None
        Calibration of the head's own probabilities; None if it has none, and for regression.
    calibrated : Reliability or None
        Calibration after temperature scaling inside the training rows.
    rejection : list of RiskCoverage
    per_class : list of ClassScores
        In the order of the evaluation's ``classes``; empty for regression.
    confusion : list of list of int
        Rows are true classes, columns predicted classes; empty for regression.
    wrong : list of WrongItem
        Misclassified rows, the most confident first, at most 10,000; of numbers the 100 rows of the largest errors.
    chosen : dict
        Hyperparameter that the head chose (``C``, ``layer``...) -> list of values, one for each resample.
    fit_seconds, predict_seconds : float
        Median wall time of one fit, and of predicting 1,000 rows, without embedding.
    size_bytes : int
        Size of the fitted head on disk.
    """

    name: str
    store: str
    backbone: str
    layers: tuple[str, ...]
    head: str
    dim: int
    metrics: dict[str, list[float]] = field(default_factory=dict)
    estimates: dict[str, Estimate] = field(default_factory=dict)
    difference: Difference | None = None
    calibration: Reliability | None = None
    calibrated: Reliability | None = None
    rejection: list[RiskCoverage] = field(default_factory=list)
    per_class: list[ClassScores] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    wrong: list[WrongItem] = field(default_factory=list)
    chosen: dict[str, list[Any]] = field(default_factory=dict)
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0
    size_bytes: int = 0

    @property
    def verdict(self) -> str:
        """Verdict of ``difference``, or ``best``."""
        return self.difference.verdict if self.difference else "best"

    def __repr__(self) -> str:
        """Return name, first metric and verdict on one line."""
        value = "".join(f", {metric}={estimate.value:.4g}" for metric, estimate in list(self.estimates.items())[:1])
        return f"CandidateResult({self.name!r}{value}, verdict={self.verdict!r})"

    def record(self) -> dict[str, Any]:
        """Return the metrics, the difference and the costs as one flat dict."""
        row: dict[str, Any] = {
            "candidate": self.name,
            "backbone": self.backbone,
            "layer": " + ".join(self.layers),
            "head": self.head,
            "dim": self.dim,
        }
        for name, estimate in self.estimates.items():
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        against = self.difference
        return row | {
            "difference": against.estimate.value if against else 0.0,
            "difference_low": against.estimate.low if against else 0.0,
            "difference_high": against.estimate.high if against else 0.0,
            "p_adjusted": against.adjusted if against else None,
            "verdict": self.verdict,
            "fit_seconds": self.fit_seconds,
            "predict_seconds": self.predict_seconds,
            "size_bytes": self.size_bytes,
        }
