"""`Ranking`: the result of `rank`, as dataclasses, flat records and a pandas frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from embedpipe._utils.notebook.html_tables import html_records
from embedpipe.backbones.imagenet_accuracy import ImageNetAccuracy
from embedpipe.evaluation.ranking.backbones import EmbeddingCost
from embedpipe.heads.options import Task
from embedpipe.statistics import Difference, Estimate

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class RankedBackbone:
    """Result of one layer of a backbone on the sample.

    Attributes
    ----------
    name, layer : str
        Provider and name, with ``(random)`` for random weights; name of the layer.
    linear_probe : Estimate or None
        Mean accuracy (R2 for regression) of a linear head on test rows, its penalty chosen inside the training rows,
        with a 95 % interval. Backbones are ordered by it. None if the backbone failed.
    values : list of float
        The same, one value for each resample.
    knn : Estimate or None
        Mean accuracy or R2 of the 20 nearest neighbours by cosine, on the same rows.
    difference : Difference or None
        Paired difference from the best; None for the best.
    h_score, log_me : float or None
        Transferability scores; see `embedpipe.evaluation.ranking.transferability`. Regression has no H-score.
    imagenet : ImageNetAccuracy or None
        Published ImageNet accuracy, if its library knows it.
    dim : int
        Length of the vectors.
    cost : EmbeddingCost or None
        Time to embed 1,000 items on this machine; None if nothing was embedded.
    failed : str
        Reason why it could not be compared; empty otherwise.
    """

    name: str
    layer: str = ""
    linear_probe: Estimate | None = None
    values: list[float] = field(default_factory=list)
    knn: Estimate | None = None
    difference: Difference | None = None
    h_score: float | None = None
    log_me: float | None = None
    imagenet: ImageNetAccuracy | None = None
    dim: int = 0
    cost: EmbeddingCost | None = None
    failed: str = ""

    @property
    def verdict(self) -> str:
        """Verdict of ``difference``, ``best`` or ``failed``."""
        return self.difference.verdict if self.difference else "best" if self.linear_probe else "failed"

    def record(self, metric: str) -> dict[str, Any]:
        """Return everything as one flat dict; ``metric`` is that of the ranking."""
        against, probe, knn = self.difference, self.linear_probe, self.knn
        return {
            "backbone": self.name,
            "layer": self.layer,
            metric: probe.value if probe else None,
            f"{metric}_low": probe.low if probe else None,
            f"{metric}_high": probe.high if probe else None,
            "difference": against.estimate.value if against else 0.0 if probe else None,
            "difference_low": against.estimate.low if against else 0.0 if probe else None,
            "difference_high": against.estimate.high if against else 0.0 if probe else None,
            "p_adjusted": against.adjusted if against else None,
            "verdict": self.verdict,
            f"knn_{metric}": knn.value if knn else None,
            f"knn_{metric}_low": knn.low if knn else None,
            f"knn_{metric}_high": knn.high if knn else None,
            "h_score": self.h_score,
            "log_me": self.log_me,
            "imagenet_accuracy": self.imagenet.accuracy if self.imagenet else None,
            "imagenet_source": self.imagenet.source if self.imagenet else None,
            "dim": self.dim or None,
            "seconds_per_1000": self.cost.seconds if self.cost else None,
            "engine": self.cost.engine if self.cost else None,
            "failed": self.failed or None,
        }


@dataclass(repr=False)
class Ranking:
    """Backbones in the order of their linear probes; what `embedpipe.rank` returns.

    Attributes
    ----------
    label : str
        The column that was learned.
    task : str
        ``classification`` or ``regression``.
    metric : str
        ``accuracy`` or ``r2``.
    resampling : str
        How rows were split, in words: ``5 x 5-fold stratified cross-validation``...
    splits_id : str
        SHA-256 over ids and splits: equal for equal folds.
    sample : int
        Number of items, the same for every backbone.
    classes : int
        Number of classes; 0 for regression.
    baseline : float
        Accuracy of always predicting the most frequent class; 0 for regression.
    margin : float
        Half the width of the region of practical equivalence, in the unit of ``metric``.
    left_out : dict
        Reason -> number of items that were left out.
    notes : list of str
        Remarks on the data.
    rows : list of RankedBackbone
        The best first, failed ones last.

    Examples
    --------
    >>> import embedpipe
    >>> from embedpipe.evaluation.ranking.result import RankedBackbone
    >>> from embedpipe.statistics import Estimate
    >>> row = RankedBackbone("timm/resnet50", "features", Estimate(0.91, 0.89, 0.93))
    >>> embedpipe.Ranking(
    ...     "label", "classification", "accuracy", "5-fold", "", 500, 10, 0.1, 0.01, {}, [], [row]
    ... )
    Ranking(label='label', best='timm/resnet50', accuracy=0.91, 1 backbones, 500 items, 5-fold)
    """

    label: str
    task: Task
    metric: str
    resampling: str
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
        """The backbone with the best linear probe."""
        return self.rows[0]

    @property
    def undecided(self) -> list[RankedBackbone]:
        """Backbones that cannot be distinguished from the best on this sample."""
        return [row for row in self.rows if row.verdict == "undecided"]

    @property
    def failed(self) -> list[RankedBackbone]:
        """Backbones that could not be compared."""
        return [row for row in self.rows if row.failed]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts."""
        return asdict(self)

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict for each backbone, the best first: the rows of `to_frame`."""
        return [row.record(self.metric) for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each backbone, the best first, as a pandas DataFrame.

        pandas is not a dependency of embedpipe: install it first.
        """
        import pandas as pd

        return pd.DataFrame(self.records())

    def __repr__(self) -> str:
        """Return label, best backbone and sample on one line."""
        probe = self.best.linear_probe
        value = f", {self.metric}={probe.value:.4g}" if probe else ""
        return (
            f"Ranking(label={self.label!r}, best={self.best.name!r}{value}, {len(self.rows)} backbones, "
            f"{self.sample:,} items, {self.resampling})"
        )

    def _repr_html_(self) -> str:
        shown = [
            {
                "backbone": row.name,
                "layer": row.layer,
                self.metric: str(row.linear_probe or ""),
                "difference": f"{row.difference.estimate.value:+z.4f}" if row.difference else "",
                "verdict": row.failed or row.verdict,
                "kNN": str(row.knn or ""),
                "s per 1,000": f"{row.cost.seconds:.1f}" if row.cost else "",
            }
            for row in self.rows
        ]
        return html_records(f"Ranking for {self.label!r}: {self.sample:,} items, {self.resampling}", shown)
