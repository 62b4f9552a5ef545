"""A small labelled sample of a listing or a store, with the shares of the classes kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.errors import TrainingDataError
from embedpipe.evaluation.ranking.options import FEWEST, RankOptions
from embedpipe.heads.options import Task
from embedpipe.sources.listing import SPLITS
from embedpipe.store.scan import label_array

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Rows to compare on.

    Attributes
    ----------
    rows : int64 array (n,)
        Going up.
    y : array (n,)
        Their labels.
    task : str
    left_out : dict
        Why rows could not be drawn, and how many.
    notes : list of str
    """

    rows: Rows
    y: npt.NDArray[Any]
    task: Task
    left_out: dict[str, int]
    notes: list[str]


def draw(table: pa.Table, label: str, options: RankOptions) -> Drawn:
    """Draw rows that have a label, but none of a test split: what is chosen on those would flatter them.

    Parameters
    ----------
    table : pyarrow.Table
        With the column ``label`` and, where there are splits, ``split``.
    label : str

    Raises
    ------
    TrainingDataError
        If there are no labels, or they cannot be told apart.
    """
    rng = np.random.default_rng(options.seed)
    labels = table.column(label)
    left_out: dict[str, int] = {}
    notes: list[str] = []
    there = np.asarray(pc.is_valid(labels))
    if not there.any():
        raise TrainingDataError(
            f"no row has a {label}, and backbones are ranked by what is learned of labels: name their column (--label)"
        )
    if missing := int((~there).sum()):
        left_out[f"without a {label}"] = missing
    if (kept := there & ~_is_test(table)).any() and (tested := int(there.sum() - kept.sum())):
        left_out["of the test split, on which nothing should be chosen"] = tested
        there = kept
    rows = np.flatnonzero(there)
    y = label_array(labels.take(pa.array(rows)))
    if y.dtype.kind not in "Ubiuf":
        raise TrainingDataError(f"column {label!r} holds {labels.type} values: labels are text, numbers or yes and no")
    fractions = y.dtype.kind == "f" and bool((y != np.round(y)).any())
    task: Task = options.task or ("regression" if fractions else "classification")
    if task == "regression":
        if y.dtype.kind not in "iuf" or not np.isfinite(y).all():
            raise TrainingDataError(f"column {label!r} holds {labels.type} values: regression needs finite numbers")
        taken = np.sort(rng.permutation(len(y))[: options.sample])
    else:
        if fractions:
            raise TrainingDataError(f"column {label!r} holds fractions: write classes as text, or take regression")
        taken = _stratified(y, options.sample, rng, left_out, notes)
    if len(np.unique(y[taken])) < 2:
        raise TrainingDataError(
            f"fewer than two classes of {label!r} have {FEWEST} rows or more"
            if task == "classification"
            else f"all values of {label!r} are the same: there is nothing to tell apart"
        )
    return Drawn(rows[taken], y[taken], task, left_out, notes)


def _is_test(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Say of each row whether it is of a test split, spelled as folders may be."""
    if "split" not in table.column_names:
        return np.zeros(table.num_rows, bool)
    names = table.column("split").to_pylist()
    return np.array([SPLITS.get(str(name).strip().lower()) == "test" for name in names], bool)


def _stratified(
    y: npt.NDArray[Any], size: int, rng: np.random.Generator, left_out: dict[str, int], notes: list[str]
) -> Rows:
    """Return positions in ``y``, going up: of each class its share, but `FEWEST` at least."""
    counts = Counter(y.tolist())
    classes = sorted(name for name, count in counts.items() if count >= FEWEST)
    if rare := sum(counts.values()) - sum(counts[name] for name in classes):
        left_out[f"of classes with fewer than {FEWEST} rows"] = rare
    if len(classes) * FEWEST > size:
        few = size // FEWEST
        notes.append(f"compared on {few:,} of the {len(classes):,} classes, drawn by chance: more with a larger sample")
        classes = [classes[i] for i in sorted(rng.choice(len(classes), few, replace=False).tolist())]
    if not classes:
        return np.zeros(0, np.int64)
    quotas = _quotas(np.array([counts[name] for name in classes]), size)
    parts = [
        rng.permutation(np.flatnonzero(y == name))[:quota] for name, quota in zip(classes, quotas.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(parts))


def _quotas(counts: Rows, size: int) -> Rows:
    """Share ``size`` rows out by ``counts``, `FEWEST` at least to each; all of them where there are no more."""
    if counts.sum() <= size:
        return counts
    raised = np.zeros(len(counts), bool)
    while True:
        left = size - FEWEST * int(raised.sum())
        shares = np.where(raised, FEWEST, counts * left / counts[~raised].sum())
        if not (low := shares < FEWEST).any():
            break
        raised |= low
    quotas = np.floor(shares).astype(np.int64)
    largest = np.argsort(quotas - shares, kind="stable")[: size - int(quotas.sum())]
    quotas[largest] += 1
    return quotas
