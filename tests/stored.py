"""Feature stores of vectors that a test makes up, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe import BackboneSpec, FeatureStore
from embedpipe.backbones import LayerSpec
from embedpipe.decoding import Preprocessing
from embedpipe.store.schema import vector_column


def make_spec(dim: int, name: str = "made_up") -> BackboneSpec:
    """Return a spec of one layer; ``name`` tells two of them apart."""
    recipe = Preprocessing(resize=(32,), crop=(32, 32), interpolation="bilinear")
    return BackboneSpec("timm", name, "0" * 64, True, (LayerSpec("features", "none", dim),), recipe)


def make_store(path: Path, X: npt.NDArray[Any], name: str = "made_up", **columns: Sequence[Any] | None) -> FeatureStore:
    """Write vectors (n, dim) and columns as a store, with ids ``row-000``, ``row-001``..."""
    rows: dict[str, Any] = {
        "id": [f"row-{i:03d}" for i in range(len(X))],
        "content_hash": [f"{i:064x}" for i in range(len(X))],
        "source_root": ["made up"] * len(X),
        "embedding": vector_column(np.asarray(X, np.float32)),
    }
    rows.update({key: list(values) for key, values in columns.items() if values is not None})
    store = FeatureStore.create(path, make_spec(X.shape[1], name))
    store.table.upsert(pa.table(rows))  # as another tool may, which writes NaN too
    return store.refresh()


def clusters(
    rows: int, classes: int = 3, dim: int = 8, spread: float = 0.7, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors around centres that are always the same, float32 (rows, dim), and the classes' numbers."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    X = np.random.default_rng(0).standard_normal((classes, dim))[y] + spread * rng.standard_normal((rows, dim)) + 1
    return X.astype(np.float32), y
