"""Who is compared: every head on every layer, and ``auto`` on all layers of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.rows import EvaluationRows, Layer
from embedpipe.evaluation.metrics import FIGURES
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.registry import AUTO, make_auto, make_estimator
from embedpipe.store import FeatureStore

#: What is compared where no heads are named: quick ones, and different ones.
USUAL: dict[Task, tuple[str, ...]] = {
    "classification": ("logreg", "lda", "ridge", "knn"),
    "regression": ("ridge", "knn"),
}


@dataclass(frozen=True)
class Competitor:
    """A head, as named, on the vectors of a layer; ``auto`` has all layers of its store."""

    name: str
    head: str
    layer: Layer
    estimator: Any


def make_competitors(rows: EvaluationRows, heads: Sequence[Any]) -> list[Competitor]:
    """Make every head for every layer, and ``auto`` for every store, with names as short as can be told apart."""
    heads = [heads] if isinstance(heads, str) or hasattr(heads, "fit") else list(heads) or list(USUAL[rows.task])
    kinds = [type(head) for head in heads]
    smallest = min(len(one.train) for one in rows.splits.resamples) * 2 // 3
    stores = list({layer.store.path: layer.store for layer in rows.layers}.values())
    backbones = [f"{store.spec.provider}/{store.spec.name}" for store in stores]
    labels = backbones if len({*backbones}) == len(stores) else [store.path for store in stores]
    place = {store.path: label for store, label in zip(stores, labels, strict=True)}
    found = []
    for head in heads:
        own = head == AUTO if isinstance(head, str) else False
        layers = [_all_of(store, rows.layers) for store in stores] if own else rows.layers
        per_store = {store.path: sum(layer.store is store for layer in layers) for store in stores}
        for layer in layers:
            if own:
                name, estimator = (
                    AUTO,
                    make_auto(rows.task, {spec.name: spec.dim for spec in layer.specs}, FitOptions()),
                )
            else:
                name, estimator = make_estimator(head, rows.task, smallest)
                if not isinstance(head, str) and kinds.count(type(head)) > 1:
                    name = " ".join(repr(estimator).split())  # what parameters tell apart
            on = " on " + "+".join(layer.names) if per_store[layer.store.path] > 1 else ""
            of = f" of {place[layer.store.path]}" if len(stores) > 1 else ""
            found.append(Competitor(f"{name}{on}{of}", name, layer, estimator))
    names = [candidate.name for candidate in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{', '.join(sorted(twice))} would be compared with itself: name each head once")
    return found


def _all_of(store: FeatureStore, layers: Sequence[Layer]) -> Layer:
    """Return all layers that are compared of a store, joined into one."""
    specs = {spec.name: spec for layer in layers if layer.store is store for spec in layer.specs}
    return Layer(store, tuple(specs.values()))


def check_metric(metric: str, task: Task, classes: int, competitors: Sequence[Competitor]) -> None:
    """Raise UsageError if a figure is not for this task, these classes or one of the heads."""
    if metric not in FIGURES[task]:
        raise UsageError(f"metric={metric!r} is not for {task}: choose from {', '.join(FIGURES[task])}")
    if metric == "roc_auc" and classes != 2:
        raise UsageError(f"metric='roc_auc' is of two classes, and there are {classes}: choose another metric")
    able = {"roc_auc": ("predict_proba", "decision_function")}.get(metric, ("predict_proba",))
    if metric not in ("log_loss", "brier", "roc_auc"):
        return
    if lacking := [one.name for one in competitors if not any(hasattr(one.estimator, method) for method in able)]:
        raise UsageError(
            f"metric={metric!r} is of probabilities, which {', '.join(lacking)} cannot give: choose another metric, or "
            "other heads"
        )
