"""Whether the vectors of two stores can be compared."""

from __future__ import annotations

from collections.abc import Iterable

from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import UsageError
from embedpipe.store import FeatureStore


def require_comparable(first: FeatureStore, second: FeatureStore, layers: Iterable[LayerSpec]) -> None:
    """Raise UsageError unless both stores have these layers, from equal backbones. Other layers may differ."""
    names = [layer.name for layer in layers]
    ours, theirs = (store.spec.only(*names) for store in (first, second))
    if ours.title == theirs.title and (missing := [name for name in names if name not in second.layers]):
        raise UsageError(f"stores must have the same layers to be compared, and {second.path!r} has no {missing[0]!r}")
    if differing := ours.diff(theirs):
        name, (mine, other) = next(iter(differing.items()))
        raise UsageError(
            f"stores must have the same backbone to be compared, got {ours.title} and {theirs.title} ({name}: {mine!r} "
            f"and {other!r}): embed one of them anew"
        )
