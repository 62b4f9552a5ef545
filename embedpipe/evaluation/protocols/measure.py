"""Published protocols on stores: each layer of each store, on the same rows and splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import open_stores, read_rows
from embedpipe.evaluation.protocols import ProtocolResult, run_protocol
from embedpipe.heads.training_data import read_finite

if TYPE_CHECKING:
    from embedpipe._utils.parameters import EvaluateParameters


@dataclass(frozen=True)
class LayerProtocol:
    """What a protocol found for one layer.

    Attributes
    ----------
    store, backbone : str
    columns : tuple of str
    splits : str
        On which rows, in words.
    results : list of ProtocolResult
        One a division of the rows: of a store with a test split there is one.
    """

    store: str
    backbone: str
    layers: tuple[str, ...]
    splits: str
    results: list[ProtocolResult]

    @property
    def figures(self) -> dict[str, float]:
        """Each figure's mean over the divisions, of those that all of them have."""
        names = [name for name in self.results[0].figures if all(name in one.figures for one in self.results)]
        return {name: float(np.mean([one.figures[name] for one in self.results])) for name in names}


@takes_options(EvaluateOptions)
def measure_protocol(
    stores: Any, protocol: str, *, seed: int = 0, progress: bool | None = None, **options: Unpack[EvaluateParameters]
) -> list[LayerProtocol]:
    """Measure the layers of one or more stores by a published protocol.

    Parameters
    ----------
    stores : FeatureStore or path, or a sequence of them
    protocol : str
        A name of `PROTOCOLS`. Figures are a paper's only on its own splits: a store without a test split is cut into
        folds, each of which is measured.
    seed : int
        Of what the protocol draws.
    progress : bool, optional
    **options
        Fields of `EvaluateOptions`; ``repeats`` is 1.

    Raises
    ------
    UsageError, TrainingDataError
        As `embedpipe.evaluate`.
    """
    (chosen,) = build_options((EvaluateOptions,), {**options, "repeats": 1})
    rows = read_rows(open_stores(stores), chosen)
    if rows.task != "classification":
        raise UsageError(f"protocols measure classes, and {chosen.label!r} holds numbers: name another --label")
    found = []
    with Progress(progress).step(protocol, len(rows.layers) * len(rows.splits.resamples), "runs") as advance:
        for layer in rows.layers:
            X = read_finite(layer.store, layer.specs, rows.ids)
            results = []
            for one in rows.splits.resamples:
                train, test = one.train, one.test
                held_out = np.flatnonzero(rows.validation[train]) if rows.validation.any() else None
                results.append(
                    run_protocol(protocol, X[train], rows.y[train], X[test], rows.y[test], held_out=held_out, seed=seed)
                )
                advance()
            spec = layer.store.spec
            backbone = f"{spec.provider}/{spec.name}"
            found.append(LayerProtocol(layer.store.path, backbone, layer.names, rows.splits.description, results))
    return found
