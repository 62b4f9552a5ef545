"""Vectors of training rows: in memory where they fit, else in memory maps that estimators read block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.machine.memory import memory_left, parse_size
from embedpipe._utils.option_names import option
from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.heads.options import Task
from embedpipe.heads.registry import HEADS
from embedpipe.neighbours.exact import normalised, row_blocks
from embedpipe.report.drawing.wording import size
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.store import FeatureStore
from embedpipe.store.scan import map_layers, read_layers

#: Positions of rows, and their vectors.
Part = tuple[npt.NDArray[np.int64] | slice, npt.NDArray[np.float32]]

#: What a fit in memory holds at most: three times the vectors, as `benchmarks/fit_memory.py` measures, and so many
#: bytes a row of ids, labels and predictions (`benchmarks/larger_than_memory.py`).
COPIES, ROW_BYTES = 3, 500
#: With columns beside the vectors: these are joined, and pass through a transformer in each fit.
COPIES_WITH_COLUMNS = 5


def memory_needed(rows: int, dim: int, columns: bool = False) -> int:
    """Return the bytes that fitting and measuring a head takes with all vectors in memory, roughly."""
    return rows * ((COPIES_WITH_COLUMNS if columns else COPIES) * 4 * dim + ROW_BYTES)


def fits_memory(rows: int, dim: int, memory: str | None = None, columns: bool = False) -> bool:
    """Return whether a head can be fitted with all vectors in memory, within the limit of an option ``memory``."""
    return memory_needed(rows, dim, columns) <= memory_left(parse_size("memory", memory))


def why_too_large(what: str, estimator: Any, shape: tuple[int, int], memory: str | None, task: Task) -> str:
    """Return why an estimator cannot be fitted on vectors that do not fit into memory, and what to do; "" if it can."""
    if getattr(estimator, "trains_on_blocks", False):
        return ""
    heads = [name for name, kinds in HEADS.items() if task in kinds and hasattr(kinds[task](2), "trains_on_blocks")]
    able = ", ".join(heads[:-1]) + " or " * (len(heads) > 1) + heads[-1]
    needed = memory_needed(*shape)
    given = f"{size(memory_left(None))} can be used" if memory is None else f"{option('memory')} is {memory}"
    enough = option("memory", f"{-(-needed // 10**9)}GB")
    return (
        f"{what} needs about {size(needed)} for {shape[0]:,} x {shape[1]:,}, and {given}: use {able}, or give {enough}"
    )


def refuse_on_disk(features: Sequence[Any], shape: tuple[int, int]) -> None:
    """Raise UsageError if a head is to learn from columns beside vectors that do not fit into memory."""
    if features:
        raise UsageError(
            f"{option('features')} needs all vectors in memory, about {size(memory_needed(*shape, columns=True))} "
            f"for {shape[0]:,} x {shape[1]:,}: leave it out, or give more {option('memory')}"
        )


def map_finite(store: FeatureStore, layers: Sequence[LayerSpec], ids: pa.Array, memory: str | None) -> MappedRows:
    """Return the vectors of some rows, of several layers joined end to end, in memory maps, once they are checked.

    Raises TrainingDataError if a vector holds NaN or infinite values, and UsageError if the limit is too small even
    for what belongs to the rows beside their vectors.
    """
    limit, least = parse_size("memory", memory), ROW_BYTES * len(ids)
    if limit is not None and least > (left := memory_left(limit)):
        raise UsageError(
            f"{option('memory')} must be at least {size(limit - left + least)}, got {memory}: ids, labels and "
            f"predictions of {len(ids):,} rows take about {size(least)} beside what the process holds"
        )
    X = MappedRows(*map_layers(store.table, layers, ids))
    finite = np.ones(len(X), bool)
    for which, block in row_blocks(X):
        finite[which] = np.isfinite(block).all(axis=1)
    _refuse_unless(finite, store, ids)
    return X


def vectors_to_predict(store: FeatureStore, layers: Sequence[LayerSpec], ids: pa.Array) -> Iterator[Part]:
    """Yield the vectors of rows and their positions: all at once if they fit into memory, else block by block."""
    if fits_memory(len(ids), sum(layer.dim for layer in layers)):
        yield slice(0, len(ids)), read_layers(store.table, layers, ids)[1]
    else:
        yield from row_blocks(MappedRows(*map_layers(store.table, layers, ids)))


def read_finite(store: FeatureStore, layers: Sequence[LayerSpec], ids: pa.Array) -> npt.NDArray[np.float32]:
    """Read the vectors of some rows into memory, of several layers joined end to end.

    Raises TrainingDataError if a vector holds NaN or infinite values.
    """
    _, X = read_layers(store.table, layers, ids)
    X.flags.writeable = False  # an estimator that works in place would change the data of the others
    _refuse_unless(np.asarray(np.isfinite(X).all(axis=1)), store, ids)
    return X


def centred_directions(X: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return rows less their mean, of unit length, and the mean: products of such rows are centred cosines."""
    centre = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    return normalised(X - centre), centre


def require_different(X: npt.NDArray[np.float32], store: FeatureStore, purpose: str) -> None:
    """Raise TrainingDataError if all rows are equal; ``purpose`` is what they cannot be, such as ``compared``."""
    if not np.ptp(X, axis=0).any():
        raise TrainingDataError(
            f"vectors must differ to be {purpose}, and all {len(X):,} of {store.path!r} are equal: run "
            "`embedpipe verify`"
        )


def _refuse_unless(finite: npt.NDArray[np.bool_], store: FeatureStore, ids: pa.Array) -> None:
    if not finite.all():
        bad = ids.filter(pa.array(~finite)).to_pylist()
        raise TrainingDataError(
            f"vectors must be finite, and {len(bad)} of {store.path!r} are not, such as that of {bad[0]!r}: "
            "run `embedpipe verify`, and embed those items again"
        )
