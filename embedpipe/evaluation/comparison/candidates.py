"""Candidates of a comparison: every head on every layer, and ``auto`` on all layers of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from embedpipe._utils.option_names import option
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.rows import EvaluationRows, Layer
from embedpipe.evaluation.metrics import METRICS
from embedpipe.heads.columns.vectoriser import takes_columns, with_columns
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.registry import AUTO, make_auto, make_estimator
from embedpipe.heads.zero_shot.text_heads import is_text_head
from embedpipe.store import FeatureStore

#: Heads that are compared by default: fast, and of different kinds.
DEFAULT_HEADS: dict[Task, tuple[str, ...]] = {
    "classification": ("logreg", "lda", "ridge", "knn"),
    "regression": ("ridge", "knn"),
}
#: Metric -> methods of which a head must have one.
REQUIRED_METHODS = {
    "roc_auc": ("predict_proba", "decision_function"),
    "log_loss": ("predict_proba",),
    "brier": ("predict_proba",),
}


@dataclass(frozen=True)
class HeadCandidate:
    """A head on the vectors of one layer, and maybe on columns beside them; ``auto`` has all layers of its store."""

    name: str
    head: str
    layer: Layer
    estimator: Any
    has_columns: bool = False


def make_candidates(
    rows: EvaluationRows, heads: Sequence[Any], of_names: Callable[[str, Layer], Any]
) -> list[HeadCandidate]:
    """Make every head for every layer, and ``auto`` for every store, with names as short as uniqueness allows.

    If the rows have columns, every head that can learn from them is there with and without them. ``of_names`` makes
    the estimator of a head of class names for a layer.
    """
    single = isinstance(heads, str) or hasattr(heads, "fit")
    if not single and not isinstance(heads, Iterable):
        raise UsageError(
            f"{option('heads')} must be a head or a list of heads, such as ['logreg', 'knn'], got {heads!r}"
        )
    heads = [heads] if single else list(heads) or list(DEFAULT_HEADS[rows.task])
    types = [type(head) for head in heads]
    smallest = min(len(resample.train) for resample in rows.splits.resamples) * 2 // 3
    stores = list({layer.store.path: layer.store for layer in rows.layers}.values())
    backbones = [store.spec.title for store in stores]
    labels = backbones if len({*backbones}) == len(stores) else [store.path for store in stores]
    store_labels = {store.path: label for store, label in zip(stores, labels, strict=True)}
    candidates = []
    for head in heads:
        is_auto = isinstance(head, str) and head == AUTO
        layers = [_all_layers(store, rows.layers) for store in stores] if is_auto else rows.layers
        layers_per_store = {store.path: sum(layer.store is store for layer in layers) for store in stores}
        for layer in layers:
            if is_auto:
                name, estimator = (
                    AUTO,
                    make_auto(rows.task, {spec.name: spec.dim for spec in layer.specs}, FitOptions()),
                )
            elif is_text_head(head):
                name, estimator = head, of_names(head, layer)
            else:
                name, estimator = make_estimator(head, rows.task, smallest)
                if not isinstance(head, str) and types.count(type(head)) > 1:
                    name = " ".join(repr(estimator).split())  # parameters distinguish estimators of one class
            on_layer = " on " + "+".join(layer.names) if layers_per_store[layer.store.path] > 1 else ""
            of_store = f" of {store_labels[layer.store.path]}" if len(stores) > 1 else ""
            candidates.append(HeadCandidate(f"{name}{on_layer}{of_store}", name, layer, estimator))
            if rows.columns and not is_auto and takes_columns(estimator):
                joined, pipeline = with_columns(name, estimator, rows.columns, layer.dim)
                candidates.append(HeadCandidate(f"{joined}{on_layer}{of_store}", joined, layer, pipeline, True))
    names = [candidate.name for candidate in candidates]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{option('heads')} must be unique, got {', '.join(sorted(repeated))} more than once")
    return candidates


def check_metric(metric: str, task: Task, classes: int, candidates: Sequence[HeadCandidate]) -> None:
    """Raise UsageError if a metric is not defined for this task, these classes or one of the heads."""
    if metric not in METRICS[task]:
        raise UsageError(f"{option('metric')} must be one of {', '.join(METRICS[task])} for {task}, got {metric!r}")
    if metric == "roc_auc" and classes != 2:
        raise UsageError(f"metric 'roc_auc' needs 2 classes, got {classes}: choose another metric")
    methods = REQUIRED_METHODS.get(metric)
    if methods is None:
        return
    if lacking := [each.name for each in candidates if not any(hasattr(each.estimator, name) for name in methods)]:
        raise UsageError(
            f"metric {metric!r} needs heads with {' or '.join(methods)}, and {', '.join(lacking)} has none: "
            "choose another metric or other heads"
        )


def _all_layers(store: FeatureStore, layers: Sequence[Layer]) -> Layer:
    """Return all compared layers of a store, joined."""
    specs = {spec.name: spec for layer in layers if layer.store is store for spec in layer.specs}
    return Layer(store, tuple(specs.values()))
