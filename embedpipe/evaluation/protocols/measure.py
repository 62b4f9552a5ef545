"""Published protocols on stores: each layer of each store, on the same rows and splits."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedpipe._utils.notebook.html_tables import html_records
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import open_stores, read_rows
from embedpipe.evaluation.protocols.problem import ProtocolResult
from embedpipe.evaluation.protocols.registry import find_protocol, run_protocol
from embedpipe.heads.training_data import read_finite
from embedpipe.splits.splits import Splits

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LayerProtocolResult:
    """Results of a protocol for one layer.

    Attributes
    ----------
    store, backbone : str
        Path of the store; provider and name of the backbone.
    layers : tuple of str
        Names of the layers whose vectors are concatenated.
    results : list of ProtocolResult
        One for each resample; for a store with a test split there is one.
    """

    store: str
    backbone: str
    layers: tuple[str, ...]
    results: list[ProtocolResult]

    @property
    def metrics(self) -> dict[str, float]:
        """Mean over resamples of each metric that all resamples have."""
        first = self.results[0].metrics
        names = [name for name in first if all(name in result.metrics for result in self.results)]
        return {name: float(np.mean([result.metrics[name] for result in self.results])) for name in names}


@dataclass(frozen=True, repr=False)
class ProtocolEvaluation:
    """Layers of stores measured by a published protocol; what ``evaluate(stores, protocol=...)`` returns.

    Attributes
    ----------
    protocol : str
        Name and version, for example ``clip-lp/1``.
    label : str
        The column that was learned.
    resampling : str
        How rows were split, in words: ``test split``, ``5-fold stratified cross-validation``...
    splits_id : str
        SHA-256 over the ids and splits: equal for equal splits.
    rows : int
        Rows with a label in all stores.
    left_out : dict
        Reason -> number of rows of the first store that took no part.
    notes : list of str
        Remarks on the data.
    layers : list of LayerProtocolResult
        In the order of the stores and their layers.
    seconds : float
        Wall time of the whole evaluation.

    Examples
    --------
    >>> result = embedpipe.evaluate("photos.features", protocol="clip-lp")  # doctest: +SKIP
    >>> result.layers[0].metrics["accuracy"]  # doctest: +SKIP
    0.913
    """

    protocol: str
    label: str
    resampling: str
    splits_id: str
    rows: int
    left_out: dict[str, int]
    notes: list[str]
    layers: list[LayerProtocolResult]
    seconds: float

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict for each layer: ``store``, ``backbone``, ``layer``, then the metrics."""
        return [
            {"store": each.store, "backbone": each.backbone, "layer": "+".join(each.layers), **each.metrics}
            for each in self.layers
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each layer as a pandas DataFrame (pandas is not a dependency of embedpipe)."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts."""
        return asdict(self) | {"layers": [{**asdict(each), "metrics": each.metrics} for each in self.layers]}

    def __repr__(self) -> str:
        """Return protocol, label and number of layers on one line."""
        return (
            f"ProtocolEvaluation({self.protocol!r}, label={self.label!r}, {len(self.layers)} layers, "
            f"{self.rows:,} rows, {self.resampling})"
        )

    def _repr_html_(self) -> str:
        return html_records(f"{self.protocol} of {self.label!r}: {self.rows:,} rows, {self.resampling}", self.records())


def measure_protocol(
    stores: Any,
    protocol: str,
    options: EvaluateOptions,
    *,
    splits: str | Path | Splits | None = None,
    progress: Progress,
) -> ProtocolEvaluation:
    """Measure the layers of one or more stores by a published protocol; see `embedpipe.evaluate`.

    Parameters
    ----------
    stores : FeatureStore, path, or sequence of them
    protocol : str
        A name in `PROTOCOLS`.
    options : EvaluateOptions
        ``repeats`` is 1.
    splits : path or Splits, optional
    progress : Progress

    Raises
    ------
    UsageError, TrainingDataError
        As `embedpipe.evaluate`.
    """
    find_protocol(protocol)
    start = time.perf_counter()
    rows = read_rows(open_stores(stores), replace(options, repeats=1), splits)
    progress.say_all(random_notes(layer.store.spec for layer in rows.layers))
    if rows.task != "classification":
        raise UsageError(
            f"protocols need classes, and column {options.label!r} holds numbers: choose another {option('label')}"
        )
    layers = []
    with progress.step(protocol, len(rows.layers) * len(rows.splits.resamples), "runs") as advance:
        for layer in rows.layers:
            X = read_finite(layer.store, layer.specs, rows.ids)
            results = []
            for resample in rows.splits.resamples:
                train, test = resample.train, resample.test
                held_out = np.flatnonzero(rows.validation[train]) if rows.validation.any() else None
                results.append(
                    run_protocol(
                        protocol, X[train], rows.y[train], X[test], rows.y[test], held_out=held_out, seed=options.seed
                    )
                )
                advance()
            spec = layer.store.spec
            backbone = f"{spec.provider}/{spec.name}"
            layers.append(LayerProtocolResult(layer.store.path, backbone, layer.names, results))
    return ProtocolEvaluation(
        protocol=layers[0].results[0].protocol,
        label=options.label,
        resampling=rows.splits.description,
        splits_id=rows.splits.identity,
        rows=len(rows.ids),
        left_out=rows.left_out,
        notes=rows.splits.notes,
        layers=layers,
        seconds=time.perf_counter() - start,
    )
