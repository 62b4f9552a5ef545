"""Drift of vectors under a cheaper precision or decoding: directions, neighbours, and heads on them.

The reference is fp32 arithmetic on images decoded at full size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.options import Precision
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.decoding.recipe import Decode, Preprocessing
from embedpipe.embedding.verification.head_drift import HeadDrift, Labelled, compare_heads

Floats = npt.NDArray[np.float64]

#: Number of neighbours that are compared.
K = 10
#: Decimal digits of similarities. Rounding makes near-equal ones ties, which go to the lower row, so that copies keep
#: their order.
DIGITS = 12
#: Bytes per block of similarities.
BLOCK = 1 << 26


@dataclass(frozen=True)
class LayerDrift:
    """Drift of the vectors of one layer.

    Attributes
    ----------
    column : str
        Vector column of the layer.
    median, p95, largest : float
        Quantiles and maximum over the items of 1 - cosine between the two vectors of an item.
    k : int
        Number of neighbours compared: 10, fewer in a smaller sample, 0 for a single item.
    neighbours_kept : float or None
        Mean share of the k nearest neighbours by cosine that stay among the k nearest.
    nearest_kept : float or None
        Share of items whose nearest neighbour stays the same.
    head : HeadDrift or None
        Score of a head on both, if the store has labels.
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
    """Drift of the vectors of a sample under a cheaper precision or decoding.

    Attributes
    ----------
    precision, decode : str
        The cheaper setting. The reference is ``fp32`` and ``full``. Texts have no decode.
    rows : int
        Number of items embedded both ways.
    not_finite : int
        Further items with NaN or infinite values, mostly in fp16. They are not compared.
    layers : tuple of LayerDrift
        Empty if no item could be compared.
    no_head : str or None
        The reason why no heads were compared.

    Notes
    -----
    Neighbours are searched within the sample, as only its rows have both vectors. In a larger store neighbours lie
    closer together and fewer of them stay, so a larger sample is closer to the truth.
    """

    precision: Precision
    decode: Decode | None
    rows: int
    not_finite: int
    layers: tuple[LayerDrift, ...]
    no_head: str | None


def reference_of(spec: BackboneSpec) -> BackboneSpec:
    """Return the spec in fp32 with images decoded at full size."""
    return with_precision(spec, "fp32", "full")


def with_precision(spec: BackboneSpec, precision: Precision | None, decode: Decode | None) -> BackboneSpec:
    """Return the spec with another precision and decode. None keeps the value; texts have no decode."""
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
    """Compare the vectors of the reference and of the cheaper backbone for the same items.

    Parameters
    ----------
    spec : BackboneSpec
        Spec of the cheaper backbone.
    reference, cheaper : mapping of str to float32 array (n, dim)
        Vectors by column, with the same items in the same rows.
    labels : Labelled or str
        Labels of the items, or the reason why heads cannot be compared.
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
    """Return 1 - cosine of each row of ``a`` and ``b``, float64 (n,).

    The result is 0 for two zero vectors, 1 for one, and 2 for values that are not finite. It is computed from the
    difference of the normalised vectors, so that equal vectors give exactly 0.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = _directions(a), _directions(b)
        moved: Floats = ((a - b) ** 2).sum(axis=1) / 2
    one_zero = a.any(axis=1) != b.any(axis=1)
    return np.where(one_zero, 1.0, np.where(np.isfinite(moved), moved, 2.0))


def neighbours_kept(a: npt.NDArray[Any], b: npt.NDArray[Any], k: int) -> tuple[float, float]:
    """Return the mean share of the k nearest rows by cosine that stay, and the share of rows whose nearest stays.

    Parameters
    ----------
    a, b : float array (n, dim)
        The two vectors of the same items, finite.
    k : int
        From 1 to n - 1, as a row is not its own neighbour.
    """
    a, b = _directions(a), _directions(b)
    kept = same = 0
    step = max(1, BLOCK // (8 * len(a)))
    for start in range(0, len(a), step):
        before, after = (_nearest(X, start, min(start + step, len(a)), k) for X in (a, b))
        kept += int((before[:, :, None] == after[:, None, :]).sum())
        same += int((before[:, 0] == after[:, 0]).sum())
    return kept / (k * len(a)), same / len(a)


def _nearest(X: Floats, start: int, stop: int, k: int) -> npt.NDArray[np.int64]:
    similarity = np.round(X[start:stop] @ X.T, DIGITS)
    similarity[np.arange(stop - start), np.arange(start, stop)] = -np.inf
    order: npt.NDArray[np.int64] = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return order


def _directions(X: npt.NDArray[Any]) -> Floats:
    """Return rows scaled to unit length in float64. Rows of zeros stay zeros."""
    X = np.asarray(X, np.float64)
    norms = np.linalg.norm(X, axis=1, keepdims=True)
    directions: Floats = X / np.where(norms > 0, norms, 1)
    return directions
