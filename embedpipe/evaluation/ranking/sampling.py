"""A small stratified sample of the labelled rows of a listing or a store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import TrainingDataError
from embedpipe.evaluation.ranking.options import MIN_ROWS, RankOptions
from embedpipe.heads.options import Task
from embedpipe.sources.listing import split_name
from embedpipe.store.scan import has_label, label_array

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledSample:
    """Rows to compare backbones on.

    Attributes
    ----------
    rows : int64 array (n,)
        Ascending.
    y : array (n,)
        Labels of the rows.
    task : str
    left_out : dict
        Reason -> number of rows that could not be drawn.
    notes : list of str
    """

    rows: Rows
    y: npt.NDArray[Any]
    task: Task
    left_out: dict[str, int]
    notes: list[str]


def draw_sample(table: pa.Table, label: str, options: RankOptions) -> LabelledSample:
    """Draw labelled rows, but none of a test split: a backbone chosen on test rows would bias their metrics.

    Parameters
    ----------
    table : pyarrow.Table
        With the column ``label`` and, optionally, ``split``.
    label : str
    options : RankOptions

    Raises
    ------
    TrainingDataError
        If there are no labels, or fewer than two classes or distinct numbers.
    """
    rng = np.random.default_rng(options.seed)
    labels = table.column(label)
    left_out: dict[str, int] = {}
    notes: list[str] = []
    drawable = has_label(labels)
    if not drawable.any():
        raise TrainingDataError(
            f"backbones are ranked on labelled rows, and no row has a {label!r}: name the column of labels "
            f"({option('label', ...)})"
        )
    if missing := int((~drawable).sum()):
        left_out[f"without a {label}"] = missing
    if (kept := drawable & ~_is_test(table)).any() and (tested := int(drawable.sum() - kept.sum())):
        left_out["of the test split, on which nothing must be chosen"] = tested
        drawable = kept
    rows = np.flatnonzero(drawable)
    y = label_array(labels.take(pa.array(rows)))
    if y.dtype.kind not in "Ubiuf":
        raise TrainingDataError(
            f"labels must be strings, numbers or booleans, and column {label!r} holds {labels.type}"
        )
    fractions = y.dtype.kind == "f" and bool((y != np.round(y)).any())
    task: Task = options.task or ("regression" if fractions else "classification")
    if task == "regression":
        if y.dtype.kind not in "iuf" or not np.isfinite(y).all():
            raise TrainingDataError(
                f"regression needs finite numbers, and column {label!r} holds {labels.type} with other values"
            )
        positions = np.sort(rng.permutation(len(y))[: options.sample])
    else:
        if fractions:
            raise TrainingDataError(
                f"classes must not be fractions, and column {label!r} holds some: write classes as strings, or use "
                f"{option('task', 'regression')}"
            )
        positions = _stratified(y, options.sample, rng, left_out, notes)
    if len(np.unique(y[positions])) < 2:
        raise TrainingDataError(
            f"at least 2 classes of {label!r} must have {MIN_ROWS} rows or more"
            if task == "classification"
            else f"values of {label!r} must differ, and all are the same"
        )
    return LabelledSample(rows[positions], y[positions], task, left_out, notes)


def _is_test(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return for each row whether it is of a test split, in any spelling that folders may have."""
    if "split" not in table.column_names:
        return np.zeros(table.num_rows, bool)
    names = table.column("split").to_pylist()
    return np.array([split_name(name) == "test" for name in names], bool)


def _stratified(
    y: npt.NDArray[Any], size: int, rng: np.random.Generator, left_out: dict[str, int], notes: list[str]
) -> Rows:
    """Return ascending positions in ``y``: each class by its share, but at least `MIN_ROWS` rows."""
    counts = Counter(y.tolist())
    classes = sorted(name for name, count in counts.items() if count >= MIN_ROWS)
    if rare := sum(counts.values()) - sum(counts[name] for name in classes):
        left_out[f"of classes with fewer than {MIN_ROWS} rows"] = rare
    if len(classes) * MIN_ROWS > size:
        count = size // MIN_ROWS
        notes.append(f"compared on {count:,} of {len(classes):,} classes, drawn at random: a larger sample has more")
        classes = [classes[i] for i in sorted(rng.choice(len(classes), count, replace=False).tolist())]
    if not classes:
        return np.zeros(0, np.int64)
    quotas = _quotas(np.array([counts[name] for name in classes]), size)
    parts = [
        rng.permutation(np.flatnonzero(y == name))[:quota] for name, quota in zip(classes, quotas.tolist(), strict=True)
    ]
    return np.sort(np.concatenate(parts))


def _quotas(counts: Rows, size: int) -> Rows:
    """Divide ``size`` rows in proportion to ``counts``, at least `MIN_ROWS` each; ``counts`` if that suffices."""
    if counts.sum() <= size:
        return counts
    raised = np.zeros(len(counts), bool)
    while True:
        left = size - MIN_ROWS * int(raised.sum())
        shares = np.where(raised, MIN_ROWS, counts * left / counts[~raised].sum())
        if not (low := shares < MIN_ROWS).any():
            break
        raised |= low
    quotas = np.floor(shares).astype(np.int64)
    largest = np.argsort(quotas - shares, kind="stable")[: size - int(quotas.sum())]
    quotas[largest] += 1
    return quotas
