"""What a head learns from: rows of a store that have a label, and which of them measure it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import KFold, StratifiedKFold

from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import TrainingDataError, UsageError, nearest
from embedpipe.heads.options import FitOptions, MeasuredOn, Task
from embedpipe.splits.inner import Split
from embedpipe.splits.split_column import divide_by_split, parse_split_names
from embedpipe.store import FeatureStore
from embedpipe.store.scan import label_array, read_layers

SEED = 0


@dataclass(frozen=True)
class TrainingData:
    """Vectors and labels, and the roles of the rows: in id order, but for a test split's, which come last.

    Parameters
    ----------
    X : float32 array (n_samples, dim)
    y : array (n_samples,), or bool (n_samples, n_labels) of the multilabel task
    task : str
    fit_rows : int64 array
        Rows that the head is fitted on in the end.
    splits : list of (train rows, test rows)
        On which the head is measured.
    tune_splits : list of (train rows, held-out rows), optional
        On which the head chooses its penalty, as positions in ``fit_rows``; None where it makes its own splits.
    measured_on : str
        What ``splits`` are: ``test``, ``validation``, ``folds`` or ``none``.
    split_ignored : bool
        Whether the store has a ``split`` column that names no rows to measure on.
    left_out : dict
        Why rows of the store are in neither, and how many.
    labels : list of str, optional
        Names of the columns of ``y`` of the multilabel task.
    weights : float64 array (n_samples,), optional
        How much each row counts in fitting.
    """

    X: npt.NDArray[np.float32]
    y: npt.NDArray[Any]
    task: Task
    fit_rows: npt.NDArray[np.int64]
    splits: list[Split]
    tune_splits: list[Split] | None
    measured_on: MeasuredOn
    split_ignored: bool
    left_out: dict[str, int]
    labels: list[str] | None = None
    weights: npt.NDArray[np.float64] | None = None


def read_training_data(store: FeatureStore, options: FitOptions) -> TrainingData:
    """Read and check what a head is to learn from.

    A store whose ``split`` column has ``train`` and ``test`` or ``validation`` is measured on the split, any
    other by cross-validation.

    Raises
    ------
    UsageError
        If there is no such column or layer.
    TrainingDataError
        If the labels or vectors cannot be learned from; the message says why and what to do.
    """
    layers = store.select_layers(options.layer)
    rows, left_out = labelled_rows(store, options)
    y, task, labels = labels_of(rows, options)
    names = _split_names(rows, options)
    if names is not None:
        known = np.isin(names, ["train", "validation", "test"])
        if not known.all():
            others = ", ".join(sorted({repr(name) for name in names[~known] if name is not None})) or "none"
            left_out[f"whose split is not train, validation or test ({others})"] = int((~known).sum())
            rows, y, names = rows.filter(pa.array(known)), y[known], names[known]
        # The rows to fit on come first, so that they are a view of X and not a copy.
        order = np.argsort(names == ("test" if "test" in names else "validation"), kind="stable")
        rows, y, names = rows.take(pa.array(order)), y[order], names[order]
    ids = rows.column("id").combine_chunks()
    X = read_finite(store, layers, ids)
    measured_on: MeasuredOn
    if names is None:
        fit_rows, tune_splits = np.arange(len(y)), None
        splits = _folds(y, task, options)
        measured_on = "folds" if splits else "none"
    else:
        fit_rows, splits, tune_splits, measured_on = divide_by_split(names)
    named = "split" in rows.column_names and rows.column("split").null_count < len(rows) and options.label != "split"
    _check(y[fit_rows], task, options.label)
    weights = None if options.sample_weight is None else numbers(rows, options.sample_weight)
    return TrainingData(
        X, y, task, fit_rows, splits, tune_splits, measured_on, named and names is None, left_out, labels, weights
    )


def labels_of(rows: pa.Table, options: FitOptions) -> tuple[npt.NDArray[Any], Task, list[str] | None]:
    """Return the labels of rows, the task that they make, and for the multilabel task the labels' names.

    Raises TrainingDataError if they do not fit the task that is asked for.
    """
    y, labels = label_array(rows.column(options.label)), None
    task = options.task or ("regression" if y.dtype.kind == "f" and (y != np.round(y)).any() else "classification")
    if task == "classification" and y.dtype.kind == "f" and (y != np.round(y)).any():
        raise TrainingDataError(
            f"column {options.label!r} holds fractions such as {y[y != np.round(y)][0].item()!r}: for classes write "
            "them as text (`embedpipe label`), or predict them as numbers (--task regression)"
        )
    if y.dtype.kind == "U" and pc.any(pc.ends_with(rows.column(options.label), "\0")).as_py():
        raise TrainingDataError(f"labels in {options.label!r} end in a zero byte, which NumPy would drop: clean them")
    if task == "regression" and y.dtype.kind not in "iuf":
        raise TrainingDataError(f"column {options.label!r} holds {y.dtype} values: regression needs numbers")
    if task == "multilabel":
        y, labels = label_sets(rows.column(options.label), options.label, options.label_separator)
    return y, task, labels


def read_finite(store: FeatureStore, layers: Sequence[LayerSpec], ids: pa.Array) -> npt.NDArray[np.float32]:
    """Read the vectors of some rows, of several layers joined end to end.

    Raises TrainingDataError if one holds what nothing can be learned from.
    """
    _, X = read_layers(store.table, layers, ids)
    X.flags.writeable = False  # an estimator that works in place would change what the others see
    if not (finite := np.isfinite(X).all(axis=1)).all():
        bad = ids.filter(pa.array(~finite)).to_pylist()
        raise TrainingDataError(
            f"{len(bad)} vectors of {store.path!r} hold NaN or infinite values, such as that of {bad[0]!r}: "
            "run `embedpipe verify`, and embed those items again"
        )
    return X


def labelled_rows(
    store: FeatureStore, options: FitOptions, others: Sequence[str] = ()
) -> tuple[pa.Table, dict[str, int]]:
    """Return id, label, split, weight and other columns of the rows that have a label, and how many have none.

    Raises UsageError or TrainingDataError if a column is not there, or holds no labels.
    """
    label = options.label
    for name in (label, *([options.sample_weight] if options.sample_weight else [])):
        if name in store.data_columns:
            continue
        if name == "label":
            raise TrainingDataError(
                f"{store.path!r} has no labels: set them from a table with `embedpipe label {store.path} LABELS.csv`, "
                f"or name another column (--label) of {store.data_columns}"
            )
        raise UsageError(
            f"{store.path!r} has no column {name!r}{nearest(name, store.data_columns)}: it has {store.data_columns}"
        )
    names = ["id", label, "split" if "split" in store.data_columns else None, options.sample_weight, *others]
    rows = store.to_arrow([*dict.fromkeys(name for name in names if name)])
    values = rows.column(label)
    simple = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    if not any(is_kind(values.type) for is_kind in simple):
        raise TrainingDataError(f"column {label!r} holds {values.type} values: labels are text, numbers or yes and no")
    there = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        there = pc.and_(there, pc.fill_null(pc.is_finite(values), False))
    labelled = rows.filter(there)
    missing = rows.num_rows - labelled.num_rows
    if not labelled.num_rows:
        raise TrainingDataError(f"none of the {rows.num_rows} rows of {store.path!r} has a value in {label!r}")
    return labelled, {f"without a {label}": missing} if missing else {}


def _split_names(rows: pa.Table, options: FitOptions) -> npt.NDArray[Any] | None:
    if "split" not in rows.column_names or "split" in (options.label, options.sample_weight):
        return None
    return parse_split_names(rows.column("split").to_pylist())


def _folds(y: npt.NDArray[Any], task: Task, options: FitOptions) -> list[Split]:
    """Return the splits of the cross-validation. Raises TrainingDataError if there are fewer rows than folds."""
    if not options.folds:
        return []
    fewest = len(y)
    if task == "classification":
        _check(y, task, options.label)
        name, fewest = min(Counter(y.tolist()).items(), key=lambda pair: pair[1])
    if fewest < options.folds:
        few = f"class {name!r} of {options.label!r} has" if task == "classification" else "there are"
        fewer = f"measure with --folds {fewest}" if fewest > 1 else "fit without measuring (--folds 0)"
        numbers = ", or predict it as a number (--task regression)" if y.dtype.kind in "iuf" else ""
        raise TrainingDataError(
            f"{few} {fewest} labelled row{'s' * (fewest > 1)}, fewer than the {options.folds} folds: "
            f"label more{', take that class out' if task == 'classification' else ''}, or {fewer}{numbers}"
        )
    kind: Any = StratifiedKFold if task == "classification" else KFold
    return list(kind(options.folds, shuffle=True, random_state=SEED).split(y[:, None], y))


def _check(y: npt.NDArray[Any], task: Task, label: str) -> None:
    if task == "multilabel":
        return
    distinct = np.unique(y)
    if task == "classification" and len(distinct) < 2:
        raise TrainingDataError(
            f"all {len(y)} labelled rows have the one {label} {distinct[0].item()!r}: a classifier needs at least two"
        )
    if task == "regression" and len(y) < 2:
        raise TrainingDataError("a single labelled row is nothing to learn from: label more")


def label_sets(column: pa.ChunkedArray, name: str, separator: str) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Read texts such as ``red;round`` as sets of labels; an empty text is an item without any.

    Returns
    -------
    Y : bool array (n_samples, n_labels)
    labels : list of str
        In order.

    Raises
    ------
    TrainingDataError
        If the column is no text, or there is no label in it.
    """
    if not pa.types.is_string(column.type):
        raise TrainingDataError(
            f"column {name!r} holds {column.type} values: several labels of an item are one text, such as "
            f"'red{separator}round' (--label-separator)"
        )
    sets = [{part.strip() for part in text.split(separator)} - {""} for text in column.to_pylist()]
    labels = sorted(set().union(*sets))
    if not labels:
        raise TrainingDataError(f"column {name!r} names no label at all: there is nothing to learn")
    place = {label: i for i, label in enumerate(labels)}
    Y = np.zeros((len(sets), len(labels)), bool)
    for row, own in enumerate(sets):
        Y[row, [place[label] for label in own]] = True
    return Y, labels


def numbers(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return the weights in a column, float64 (n_samples,).

    Raises TrainingDataError, naming the first such row, if one is missing, infinite or negative, or all are 0.
    """
    column = rows.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise TrainingDataError(f"column {name!r} holds {column.type} values: weights of rows are numbers")
    weights: npt.NDArray[Any] = np.asarray(pc.cast(column, pa.float64()).combine_chunks().to_numpy(False))
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise TrainingDataError(
            f"the weight of {rows.column('id')[first].as_py()!r} in {name!r} is {column[first].as_py()!r}, and "
            f"{int(bad.sum())} rows have none that is a number of at least 0: set it (`embedpipe label --into {name}`)"
        )
    if not weights.any():
        raise TrainingDataError(f"all weights in {name!r} are 0: no row would count")
    return weights
