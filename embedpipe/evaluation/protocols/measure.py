"""Published protocols on stores: each layer of each store, on the same rows and splits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.notebook.html_tables import html_records
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import open_stores, read_rows
from embedpipe.evaluation.paper_table import PaperTable
from embedpipe.evaluation.protocols.details import detail_table, settings_table
from embedpipe.evaluation.protocols.intervals import compare_layers
from embedpipe.evaluation.protocols.problem import ProtocolResult
from embedpipe.evaluation.protocols.registry import find_protocol, predict_by_protocol
from embedpipe.evaluation.saving import save_results
from embedpipe.evaluation.tables import protocol_table
from embedpipe.heads.training.vectors import fits_memory, read_finite, why_too_large
from embedpipe.splits.splits import Splits
from embedpipe.statistics import Difference, Estimate

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]


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
    estimates : dict
        Metric -> mean over the test rows with its 95 % interval, of protocols whose metrics are such means.
    difference : Difference or None
        Paired difference from the layer that is best by the first of these metrics; None for that one.
    """

    store: str
    backbone: str
    layers: tuple[str, ...]
    results: list[ProtocolResult]
    estimates: dict[str, Estimate] = field(default_factory=dict)
    difference: Difference | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric that all resamples have, over resamples; over the test rows if there are estimates."""
        if self.estimates:
            return {name: estimate.value for name, estimate in self.estimates.items()}
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
    predictions : pyarrow.Table
        One row for each prediction: ``store``, ``backbone``, ``layer``, ``setting`` (such as ``k = 20``, or the number
        of labels and the draw), ``resample`` (int), ``id``, ``actual`` and ``predicted``.
    test_rows : int
        Rows that were tested.
    seconds : float
        Wall time of the whole evaluation.

    Examples
    --------
    >>> result = embedpipe.evaluate("photos.features", protocol="mteb-cls")
    >>> result.layers[0].metrics["accuracy"]
    1.0
    """

    protocol: str
    label: str
    resampling: str
    splits_id: str
    rows: int
    left_out: dict[str, int]
    notes: list[str]
    layers: list[LayerProtocolResult]
    predictions: pa.Table
    test_rows: int
    seconds: float

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dict for each layer: ``store``, ``backbone``, ``layer``, then the metrics.

        Metrics with an interval have ``_low`` and ``_high``; ``verdict`` then compares the layer with the best.
        """
        return [_record(each, len(self.layers) > 1) for each in self.layers]

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each layer as a pandas DataFrame (pandas is not a dependency of embedpipe)."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def to_dict(self) -> dict[str, Any]:
        """Return everything but ``predictions`` as plain numbers, strings, lists and dicts."""
        plain = {key: value for key, value in vars(self).items() if key != "predictions"}
        return plain | {"layers": [{**asdict(each), "metrics": each.metrics} for each in self.layers]}

    def to_table(self, path: str | Path) -> list[str]:
        """Write the table that a paper prints: backbone and the metrics of the protocol; see `Evaluation.to_table`."""
        return self._table().write(path)

    def _table(self) -> PaperTable:
        remark = f"{self.protocol} of {self.label}; {self.resampling}; splits {self.splits_id}."
        return protocol_table(self.records(), self.test_rows, remark)

    def to_html(self, path: str | Path) -> Path:
        """Write the results, with every k, C or number of labels, as one HTML page; see `Evaluation.to_html`."""
        from embedpipe.evaluation.table_page import Section, write_table_page
        from embedpipe.report.drawing.wording import heading

        sections = [
            Section(f"Layer {record['layer']} of {record['backbone']}", *detail_table(layer.results))
            for record, layer in zip(self.records(), self.layers, strict=True)
        ]
        protocol = find_protocol(self.protocol.partition("/")[0])
        facts = [("Method", protocol.description), ("Published in", protocol.citation)]
        facts += [("Resampling", self.resampling), ("Test rows", f"{self.test_rows:,}")]
        facts += [(heading(name), value) for name, value in settings_table(self.layers[0].results[0].settings)]
        facts += [("Left out", f"{counted(count, 'row')} {reason}") for reason, count in self.left_out.items()]
        table = self._table()
        title = f"Predicting “{self.label}” by {self.protocol}"
        return write_table_page(
            table, path, kicker="Published protocol", title=title, facts=facts, notes=self.notes, sections=sections
        )

    def save(self, path: str | Path) -> list[str]:
        """Write everything as one JSON file, which `embedpipe.load_evaluation` reads; see `Evaluation.save`."""
        return save_results("protocol", self, path)

    def __repr__(self) -> str:
        """Return protocol, label and number of layers on one line."""
        return (
            f"ProtocolEvaluation({self.protocol!r}, label={self.label!r}, {len(self.layers)} layers, "
            f"{self.rows:,} rows, {self.resampling})"
        )

    def _repr_html_(self) -> str:
        return html_records(f"{self.protocol} of {self.label!r}: {self.rows:,} rows, {self.resampling}", self.records())


def _record(layer: LayerProtocolResult, several: bool) -> dict[str, Any]:
    place = {"store": layer.store, "backbone": layer.backbone, "layer": "+".join(layer.layers)}
    ends = {f"{name}_{end}": getattr(at, end) for name, at in layer.estimates.items() for end in ("low", "high")}
    verdict = {"verdict": layer.difference.verdict if layer.difference else "best"} if ends and several else {}
    return {**place, **layer.metrics, **ends, **verdict}


def _shared(parts: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys that all have, in the order of the first."""
    return [name for name in parts[0] if all(name in part for part in parts)]


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
    with progress.step("reading rows and splitting them"):
        rows = read_rows(open_stores(stores), replace(options, repeats=1), splits)
    progress.say_all(random_notes(layer.store.spec for layer in rows.layers))
    if rows.task != "classification":
        raise UsageError(
            f"protocols need classes, and column {options.label!r} holds numbers: choose another {option('label')}"
        )
    layers, predictions = [], []
    values: list[dict[str, Floats]] = []
    with progress.step(protocol, len(rows.layers) * len(rows.splits.resamples), "runs") as advance:
        for layer in rows.layers:
            shape = len(rows.ids), layer.dim
            if not fits_memory(*shape, options.memory):
                raise UsageError(why_too_large(protocol, None, shape, options.memory, rows.task))
            X = read_finite(layer.store, layer.specs, rows.ids)
            backbone, results = layer.store.spec.title, list[ProtocolResult]()
            parts: list[dict[str, Floats]] = []
            for resample in rows.splits.resamples:
                train, test = resample.train, resample.test
                chooses = protocol == "clip-lp" and rows.validation.any()  # others need no classes beside held-out rows
                held_out = np.flatnonzero(rows.validation[train]) if chooses else None
                result, predicted, of_rows = predict_by_protocol(
                    protocol,
                    X[train],
                    rows.y[train],
                    X[test],
                    rows.y[test],
                    held_out=held_out,
                    seed=options.seed,
                )
                tested = {"id": rows.ids.take(pa.array(test)), "actual": pa.array(rows.y[test])}
                for setting, labels in predicted.items():
                    place = {"store": layer.store.path, "backbone": backbone, "layer": "+".join(layer.names)}
                    names = {
                        key: pa.array([value] * len(test)) for key, value in (place | {"setting": setting}).items()
                    }
                    number = {"resample": pa.array(np.full(len(test), len(results), np.int32))}
                    predictions.append(pa.table({**names, **number, **tested, "predicted": pa.array(labels)}))
                results.append(result)
                parts.append(of_rows)
                advance()
            values.append({name: np.concatenate([part[name] for part in parts]) for name in _shared(parts)})
            layers.append(LayerProtocolResult(layer.store.path, backbone, layer.names, results))
    if of_all := _shared(values):
        queries = np.concatenate([resample.test for resample in rows.splits.resamples])
        groups = queries if rows.splits.groups is None else rows.splits.groups[queries]
        compared = compare_layers([{name: each[name] for name in of_all} for each in values], groups, options.margin)
        layers = [
            replace(layer, estimates=estimates, difference=difference)
            for layer, (estimates, difference) in zip(layers, compared, strict=True)
        ]
    return ProtocolEvaluation(
        protocol=layers[0].results[0].protocol,
        label=options.label,
        resampling=rows.splits.description,
        splits_id=rows.splits.identity,
        rows=len(rows.ids),
        left_out=rows.left_out,
        notes=rows.splits.notes,
        layers=layers,
        predictions=pa.concat_tables(predictions),
        test_rows=len(np.unique(np.concatenate([resample.test for resample in rows.splits.resamples]))),
        seconds=time.perf_counter() - start,
    )
