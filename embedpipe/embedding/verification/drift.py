"""How far a cheaper way of computing vectors moves them: their directions, their neighbours, and the heads on them.

The reference is fp32 arithmetic on pictures that are decoded at full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.precision import Precision
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.decoding.recipe import Decode, Preprocessing
from embedpipe.embedding.verification.head_drift import HeadDrift, Labelled, compare_heads

Floats = npt.NDArray[np.float64]

#: Neighbours that are compared.
K = 10
#: Similarities nearer than this many digits are ties, which go to the lower row: copies stay in one order.
DIGITS = 12
#: Bytes of a block of similarities.
BLOCK = 1 << 26


@dataclass(frozen=True)
class LayerDrift:
    """How far the vectors of one layer move.

    Attributes
    ----------
    column : str
        The store's column of that layer.
    median, p95, largest : float
        Of 1 - cosine between an item's two vectors, over the items.
    k : int
        How many neighbours were looked at: 10, or fewer where the sample is smaller; 0 for a single item.
    neighbours_kept : float or None
        Mean share of an item's k nearest by cosine that are still among its k nearest.
    nearest_kept : float or None
        Share of items whose nearest stays the same.
    head : HeadDrift or None
        What a head makes of either, where there are labels to say it with.
    """

    column: str
    median: float
    p95: float
    largest: float
    k: int
    neighbours_kept: float | None
    nearest_kept: float | None
    head: HeadDrift | None = None


@dataclass(frozen=True)
class Drift:
    """How far a cheaper precision or decode moves the vectors of a sample.

    Attributes
    ----------
    precision, decode : str
        Of the cheaper one; the reference is ``fp32`` and ``full``. Texts have no decode.
    rows : int
        Items that were embedded both ways.
    not_finite : int
        Items beyond those that have NaN or infinite values, in fp16 mostly: they are not compared.
    layers : tuple of LayerDrift
        Empty where no item could be compared.
    no_head : str or None
        Why nothing is said of heads.

    Notes
    -----
    Neighbours are looked for among the sample's own rows, as no other rows have both vectors. In a store of many more
    rows neighbours lie closer together, and fewer of them stay: a larger sample is nearer to that.
    """

    precision: Precision
    decode: Decode | None
    rows: int
    not_finite: int
    layers: tuple[LayerDrift, ...]
    no_head: str | None


def reference_of(spec: BackboneSpec) -> BackboneSpec:
    """Return the spec of the same vectors in fp32, of pictures that are decoded at full size."""
    return with_precision(spec, "fp32", "full")


def with_precision(spec: BackboneSpec, precision: Precision | None, decode: Decode | None) -> BackboneSpec:
    """Return a spec at another precision and decode; None keeps what it has, and texts have no decode."""
    recipe = spec.preprocessing
    if isinstance(recipe, Preprocessing):
        recipe = replace(recipe, decode=decode or recipe.decode)
    return replace(spec, precision=precision or spec.precision, preprocessing=recipe)


def measure_drift(
    spec: BackboneSpec,
    reference: Mapping[str, npt.NDArray[np.float32]],
    cheaper: Mapping[str, npt.NDArray[np.float32]],
    labels: Labelled | str,
) -> Drift:
    """Compare the vectors of a reference and of a cheaper backbone for the same items.

    Parameters
    ----------
    spec : BackboneSpec
        Of the cheaper one.
    reference, cheaper : mapping of str to float32 array (n, dim)
        The vectors by column, row by row of the same items.
    labels : Labelled or str
        The items' labels, or why there are none to compare heads with.
    """
    finite = np.logical_and.reduce([np.isfinite(X).all(axis=1) for X in (*reference.values(), *cheaper.values())])
    rows = int(finite.sum())
    task = labels.among(finite) if isinstance(labels, Labelled) else labels
    layers = []
    for column in reference if rows else ():
        pair = reference[column][finite], cheaper[column][finite]
        moved = drifts(*pair)
        k = min(K, rows - 1)
        overlap, nearest = neighbours_kept(*pair, k) if k else (None, None)
        median, p95 = np.quantile(moved, (0.5, 0.95)).tolist()
        head = None if isinstance(task, str) else compare_heads(*pair, task)
        layers.append(LayerDrift(column, median, p95, float(moved.max()), k, overlap, nearest, head))
    return Drift(
        precision=spec.precision,
        decode=spec.preprocessing.decode if isinstance(spec.preprocessing, Preprocessing) else None,
        rows=rows,
        not_finite=len(finite) - rows,
        layers=tuple(layers),
        no_head=task if isinstance(task, str) else None,
    )


def drifts(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> Floats:
    """Return 1 - cosine of each row of ``a`` and ``b``, float64 (n,); 0 of two zero vectors, 1 of one, 2 if not finite.

    By way of the difference of the normalised vectors, so that equal ones give exactly 0.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = _directions(a), _directions(b)
        moved: Floats = ((a - b) ** 2).sum(axis=1) / 2
    alone = a.any(axis=1) != b.any(axis=1)
    return np.where(alone, 1.0, np.where(np.isfinite(moved), moved, 2.0))


def neighbours_kept(a: npt.NDArray[Any], b: npt.NDArray[Any], k: int) -> tuple[float, float]:
    """Return the mean share of each row's k nearest rows by cosine that stay, and the share whose nearest stays.

    Parameters
    ----------
    a, b : float array (n, dim)
        Both vectors of the same items; finite.
    k : int
        From 1 to n - 1: a row is not its own neighbour.
    """
    a, b = _directions(a), _directions(b)
    kept = same = 0
    step = max(1, BLOCK // (8 * len(a)))
    for start in range(0, len(a), step):
        one, other = (_nearest(X, start, min(start + step, len(a)), k) for X in (a, b))
        kept += int((one[:, :, None] == other[:, None, :]).sum())
        same += int((one[:, 0] == other[:, 0]).sum())
    return kept / (k * len(a)), same / len(a)


def _nearest(X: Floats, start: int, stop: int, k: int) -> npt.NDArray[np.int64]:
    similarity = np.round(X[start:stop] @ X.T, DIGITS)
    similarity[np.arange(stop - start), np.arange(start, stop)] = -np.inf
    order: npt.NDArray[np.int64] = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order


def _directions(X: npt.NDArray[Any]) -> Floats:
    """Return rows scaled to length one, in float64; rows of zeros stay as they are."""
    X = np.asarray(X, np.float64)
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    directions: Floats = X / np.where(norms > 0, norms, 1)
    return directions
