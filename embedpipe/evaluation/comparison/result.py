"""What an evaluation found: plain dataclasses, a pandas frame, and a table of every prediction."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedpipe.heads.options import Task
from embedpipe.statistics import Difference, Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Reliability:
    """How far a head's probabilities can be taken at their word, pooled over the rows it had not seen.

    Attributes
    ----------
    confidence, accuracy, rows : list
        Of each bin that has rows, in order: the mean probability of the predicted class, the share that was right,
        and how many rows.
    ece : float
        Expected calibration error over equal-width bins.
    ece_debiased : float
        The same less what a perfectly calibrated head with these confidences would show; 0 at least.
    brier, log_loss : float
    """

    confidence: list[float]
    accuracy: list[float]
    rows: list[int]
    ece: float
    ece_debiased: float
    brier: float
    log_loss: float


@dataclass(frozen=True)
class RiskCoverage:
    """What is gained by leaving the least certain rows to a person.

    Attributes
    ----------
    signal : str
        What rows were ordered by: ``probability`` of the predicted class, or ``distance`` to the training rows.
    coverage, risk : list of float
        Share of the rows that are answered, going up to 1, and the share of those answered that is wrong.
    area : float
        Under the curve (AURC); smaller is better.
    """

    signal: str
    coverage: list[float]
    risk: list[float]
    area: float


@dataclass(frozen=True)
class ClassScores:
    """One class: how many rows have it, and how it was recognised."""

    name: str
    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class WrongItem:
    """A row that was taken for another class, how sure the head was of that, and its text where the store has it."""

    id: str
    uri: str | None
    actual: str
    predicted: str
    probability: float
    text: str | None = None


@dataclass
class CandidateResult:
    """One candidate: a head on the vectors of some layers of a store.

    Attributes
    ----------
    name : str
        Unique within the evaluation, as short as that allows: ``logreg``, ``logreg on features``.
    store, backbone : str
        Path of the store; provider and name.
    layers : tuple of str
        Names of the layers whose vectors it works on, joined end to end.
    head : str
        A head's name.
    dim : int
        Length of the vectors it works on.
    metrics : dict
        Metric -> one value a resample.
    estimates : dict
        Metric -> mean with interval.
    difference : Difference or None
        Against the best; None for the best.
    calibration : Reliability or None
        Of the head's own probabilities; None where it gives none, or for numbers.
    calibrated : Reliability or None
        After temperature scaling inside the training rows.
    rejection : list of RiskCoverage
    per_class : list of ClassScores
        In the order of the evaluation's ``classes``; empty for numbers. These, and all below and above that counts
        rows, are of the first repeat, in which each row is predicted once.
    confusion : list of list of int
        Rows are true classes, columns predicted ones; empty for numbers.
    wrong : list of WrongItem
        Most confidently wrong first.
    chosen : dict
        What it chose by itself (``C``, ``layer``...) -> the choices, one a resample.
    fit_seconds : float
        Median wall time of one fit on one resample's training rows, its own choices included.
    predict_seconds : float
        Median wall time of predicting 1,000 rows.
    size_bytes : int
        Of the fitted head, as saved.
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
        """The verdict of its difference to the best candidate; ``best`` for that one."""
        return self.difference.verdict if self.difference else "best"


@dataclass
class Evaluation:
    """Candidates compared on the same rows and splits.

    Attributes
    ----------
    label, task : str
    metric : str
        What candidates are ordered by.
    higher_is_better : bool
        Of ``metric``.
    protocol : str
        How it was measured, in words: ``5 x 5-fold stratified cross-validation``, ``test split``...
    splits_id : str
        SHA-256 over the ids and roles of the splits: equal for equal splits.
    rows, classes, baseline
        How many rows took part; their classes (empty for numbers); metric -> mean value of the commonest class, or
        of the mean.
    margin : float
        Half the width of the region of practical equivalence, in the unit of ``metric``.
    left_out : dict
        Why rows took no part, and how many.
    notes : list of str
        What a reader should know: near-duplicates held together, classes with few rows...
    candidates : list of CandidateResult
        The best first.
    predictions : pyarrow.Table
        One row a prediction: ``candidate``, ``resample`` (int), ``id``, ``actual``, ``predicted``, and for classes
        ``probabilities`` (list of float, in the order of ``classes``), null where the head gives none.
    failed : dict
        Candidates that could not be measured -> why.
    seconds : float
        Wall time of it all.
    """

    label: str
    task: Task
    metric: str
    higher_is_better: bool
    protocol: str
    splits_id: str
    rows: int
    classes: list[str]
    baseline: dict[str, float]
    margin: float
    left_out: dict[str, int]
    notes: list[str]
    candidates: list[CandidateResult]
    predictions: pa.Table = field(repr=False)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best(self) -> CandidateResult:
        """The candidate with the best mean."""
        return self.candidates[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts: all but ``predictions``."""
        return {key: _plain(value) for key, value in vars(self).items() if key != "predictions"}

    def to_frame(self) -> pd.DataFrame:
        """Return one row a candidate, the best first, as a pandas DataFrame (pandas is not installed with embedpipe).

        Columns ``candidate``, ``backbone``, ``layer``, ``head``, ``dim``, then each metric with its ``_low`` and
        ``_high``, ``difference`` with ends and ``p_adjusted``, ``verdict``, seconds and bytes.
        """
        import pandas as pd

        return pd.DataFrame([_flat(candidate) for candidate in self.candidates])


def _plain(value: Any) -> Any:
    return [asdict(one) for one in value] if isinstance(value, list) and value and hasattr(value[0], "store") else value


def _flat(candidate: CandidateResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "candidate": candidate.name,
        "backbone": candidate.backbone,
        "layer": "+".join(candidate.layers),
        "head": candidate.head,
        "dim": candidate.dim,
    }
    for name, estimate in candidate.estimates.items():
        row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    against = candidate.difference
    row |= {
        "difference": against.estimate.value if against else 0.0,
        "difference_low": against.estimate.low if against else 0.0,
        "difference_high": against.estimate.high if against else 0.0,
        "p_adjusted": against.adjusted if against else None,
        "verdict": candidate.verdict,
        "fit_seconds": candidate.fit_seconds,
        "predict_seconds": candidate.predict_seconds,
        "size_bytes": candidate.size_bytes,
    }
    return row
