"""What a ranking of backbones found: plain dataclasses, flat records and a pandas frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from embedpipe.evaluation.ranking.backbones import Cost
from embedpipe.evaluation.ranking.imagenet_accuracy import Prior
from embedpipe.heads.options import Task
from embedpipe.statistics import Difference, Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class RankedBackbone:
    """What one layer of a backbone is worth on the sample.

    Attributes
    ----------
    name, layer : str
        Provider and name, ``(random)`` behind those with random weights; the layer's name.
    probe : Estimate or None
        What backbones are ordered by: mean accuracy (R2 of numbers) of a linear head on rows that it has not seen, its
        penalty chosen inside its training rows, with a 95 % interval; None where the backbone failed.
    values : list of float
        The same, one a resample.
    knn : Estimate or None
        Of the 20 nearest neighbours by cosine, on the same rows.
    difference : Difference or None
        Against the best, paired; None for the best.
    h_score, log_me : float or None
        Cheap hints; see `embedpipe.evaluation.ranking.transferability`. Numbers have no H-score.
    prior : Prior or None
        Published ImageNet accuracy, where its library knows it.
    dim : int
    cost : Cost or None
        Of 1,000 items on this machine; None where nothing was embedded.
    failed : str
        Why it could not be compared; empty otherwise.
    """

    name: str
    layer: str = ""
    probe: Estimate | None = None
    values: list[float] = field(default_factory=list)
    knn: Estimate | None = None
    difference: Difference | None = None
    h_score: float | None = None
    log_me: float | None = None
    prior: Prior | None = None
    dim: int = 0
    cost: Cost | None = None
    failed: str = ""


@dataclass
class Ranking:
    """Backbones in the order of their linear probes.

    Attributes
    ----------
    label, task : str
    metric : str
        ``accuracy`` or ``r2``.
    protocol : str
        How it was measured, in words.
    splits_id : str
        SHA-256 over ids and roles: equal for equal folds.
    sample, classes : int
        Items that were compared on, the same for every backbone, and their classes; 0 classes for numbers.
    baseline : float
        The metric of always saying the commonest class, or the mean.
    margin : float
        Half the width of the region of practical equivalence.
    left_out : dict
        Why items took no part, and how many.
    notes : list of str
        What a reader should know.
    rows : list of RankedBackbone
        The best first; those that failed last.
    """

    label: str
    task: Task
    metric: str
    protocol: str
    splits_id: str
    sample: int
    classes: int
    baseline: float
    margin: float
    left_out: dict[str, int]
    notes: list[str]
    rows: list[RankedBackbone]

    @property
    def best(self) -> RankedBackbone:
        """The backbone with the best probe."""
        return self.rows[0]

    @property
    def undecided(self) -> list[RankedBackbone]:
        """Those that the sample cannot tell from the best."""
        return [row for row in self.rows[1:] if row.difference is not None and row.difference.verdict == "undecided"]

    @property
    def failed(self) -> list[RankedBackbone]:
        """Those that could not be compared."""
        return [row for row in self.rows if row.failed]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return asdict(self)

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict a backbone, the best first: what `to_frame` and the command line's table hold."""
        return [_record(row, self.metric) for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a backbone, the best first, as a pandas DataFrame (pandas is not installed with embedpipe)."""
        import pandas as pd

        return pd.DataFrame(self.records())


def _record(row: RankedBackbone, metric: str) -> dict[str, Any]:
    against, probe, knn = row.difference, row.probe, row.knn
    return {
        "backbone": row.name,
        "layer": row.layer,
        metric: probe.value if probe else None,
        f"{metric}_low": probe.low if probe else None,
        f"{metric}_high": probe.high if probe else None,
        "difference": against.estimate.value if against else 0.0 if probe else None,
        "difference_low": against.estimate.low if against else 0.0 if probe else None,
        "difference_high": against.estimate.high if against else 0.0 if probe else None,
        "p_adjusted": against.adjusted if against else None,
        "verdict": against.verdict if against else "best" if probe else "failed",
        f"knn_{metric}": knn.value if knn else None,
        f"knn_{metric}_low": knn.low if knn else None,
        f"knn_{metric}_high": knn.high if knn else None,
        "h_score": row.h_score,
        "log_me": row.log_me,
        "imagenet_accuracy": row.prior.accuracy if row.prior else None,
        "imagenet_source": row.prior.source if row.prior else None,
        "dim": row.dim or None,
        "seconds_per_1000": row.cost.seconds if row.cost else None,
        "engine": row.cost.engine if row.cost else None,
        "failed": row.failed or None,
    }
