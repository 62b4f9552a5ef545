"""Training data of a head: the labelled rows of a store, and which are fitted on, tuned on and measured on."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import KFold, StratifiedKFold

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.option_names import has_option, option
from embedpipe.errors import StoreError, TrainingDataError, UsageError
from embedpipe.heads.columns.table_columns import (
    TableColumn,
    column_values,
    join_columns,
    leak_notes,
    learn_columns,
    value_notes,
)
from embedpipe.heads.options import FitOptions, MeasuredOn, Task
from embedpipe.heads.training.vectors import map_finite, read_finite
from embedpipe.splits.inner import Split
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.splits.split_column import divide_by_split, parse_split_names
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import LEFT_OUT, and_excluded, used_rows
from embedpipe.store.scan import has_label, label_array
from embedpipe.store.schema import require_column

#: What separates the labels of an item in other tables, for a hint.
_SEPARATORS = (",", "|", ";", "/", " ")


@dataclass(frozen=True)
class TrainingData:
    """Vectors and labels, and what each row is for. Rows are in id order, but held-out rows of a split come last.

    Parameters
    ----------
    ids : pyarrow.Array of str
    X : float32 array (n_samples, dim), or MappedRows
        In memory maps if they do not fit into memory. Columns beside the vectors come last.
    y : array (n_samples,), or bool (n_samples, n_labels) of the multilabel task
    task : str
    fit_rows : int64 array
        Rows that the final head is fitted on.
    splits : list of (train rows, test rows)
        On which the head is measured.
    tune_splits : list of (train rows, held-out rows), optional
        On which the head chooses its penalty, as positions in ``fit_rows``; None if it makes its own splits.
    measured_on : str
        What ``splits`` are: ``test``, ``validation``, ``folds`` or ``none``.
    split_ignored : bool
        Whether the store has a ``split`` column that names no rows to measure on.
    left_out : dict
        Reason -> number of the store's rows that are left out.
    labels : list of str, optional
        Names of the columns of ``y``, for the multilabel task.
    weights : float64 array (n_samples,), optional
        Weight of each row in fitting.
    columns : tuple of TableColumn
        The columns beside the vectors.
    notes : tuple of str
        Remarks on their values.
    """

    ids: pa.Array
    X: npt.NDArray[np.float32] | MappedRows
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
    columns: tuple[TableColumn, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def vectors(self) -> npt.NDArray[np.float32] | MappedRows:
        """The vectors without the columns beside them."""
        return self.X[:, : -len(self.columns)] if self.columns and isinstance(self.X, np.ndarray) else self.X


def read_training_data(
    store: FeatureStore, options: FitOptions, stay_on_disk: Callable[[Task, tuple[int, int]], bool]
) -> TrainingData:
    """Read and check the training data of a head.

    If the store's ``split`` column has ``train`` and ``test`` or ``validation``, the head is measured on that split,
    else by cross-validation.

    Parameters
    ----------
    store : FeatureStore
    options : FitOptions
    stay_on_disk : callable
        Gets the task and the shape of the vectors before they are read, and decides whether they are mapped.

    Raises
    ------
    UsageError
        If there is no such column or layer.
    TrainingDataError
        If the labels or vectors cannot be learned from; the message says why and what to do.
    """
    layers = store.select_layers(options.layer)
    for name in options.features:
        require_column(name, store.data_columns, store.path, "features")
    rows, left_out = labelled_rows(store, options, options.features)
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
    X: npt.NDArray[np.float32] | MappedRows
    if stay_on_disk(task, (len(ids), sum(layer.dim for layer in layers))):
        X = map_finite(store, layers, ids, options.memory)
    else:
        X = read_finite(store, layers, ids)
    columns, notes = learn_columns(rows, options.features, (options.label, options.sample_weight)), []
    if columns:
        values = column_values(columns, rows)
        notes = value_notes(columns, values) + leak_notes(columns, values, y)
        X = join_columns(X[:], values)
    measured_on: MeasuredOn
    if names is None:
        fit_rows, tune_splits = np.arange(len(y)), None
        splits, unmeasured = _folds(y, task, options)
        notes += unmeasured
        measured_on = "folds" if splits else "none"
    else:
        fit_rows, splits, tune_splits, measured_on = divide_by_split(names)
    named = "split" in rows.column_names and rows.column("split").null_count < len(rows) and options.label != "split"
    _check(y[fit_rows], task, options.label)
    weights = None if options.sample_weight is None else sample_weights(rows, options.sample_weight)
    ignored = named and names is None
    sets = fit_rows, splits, tune_splits, measured_on, ignored
    return TrainingData(ids, X, y, task, *sets, left_out, labels, weights, columns, tuple(notes))


def fitted_ids(store: FeatureStore, version: int, label: str, measured_on: MeasuredOn) -> pa.Array:
    """Return the ids of the rows of a store that a head was fitted on.

    They are those of the version that it was fitted on; where its files are deleted, those that a fit would take now:
    none, if no row has a label and is used any more.
    """
    try:
        rows, _ = labelled_rows(FeatureStore(store.path, version), FitOptions(label=label))
    except StoreError:
        try:
            rows, _ = labelled_rows(store, FitOptions(label=label))
        except (TrainingDataError, UsageError):
            return pa.array([], pa.string())
    names = parse_split_names(rows.column("split").to_pylist()) if "split" in rows.column_names else None
    if names is not None and measured_on in ("test", "validation"):
        fitted_on = ["train", "validation"] if measured_on == "test" else ["train"]
        rows = rows.filter(pa.array(np.isin(names, fitted_on)))
    return rows.column("id").combine_chunks()


def labels_of(rows: pa.Table, options: FitOptions) -> tuple[npt.NDArray[Any], Task, list[str] | None]:
    """Return the labels of rows, their task, and the names of the labels for the multilabel task.

    Raises TrainingDataError if the labels do not fit the task in ``options``.
    """
    _require_labels(rows.column(options.label), options.label)
    y, labels = label_array(rows.column(options.label)), None
    task = options.task or ("regression" if y.dtype.kind == "f" and (y != np.round(y)).any() else "classification")
    if task == "classification" and y.dtype.kind == "f" and (y != np.round(y)).any():
        as_numbers = f", or predict numbers ({option('task', 'regression')})" * has_option("task")
        raise TrainingDataError(
            f"classes must be text or integers, and column {options.label!r} holds fractions such as "
            f"{y[y != np.round(y)][0].item()!r}: write them as text (`embedpipe label`){as_numbers}"
        )
    if y.dtype.kind == "U" and pc.any(pc.ends_with(rows.column(options.label), "\0")).as_py():
        raise TrainingDataError(f"labels must not end in a zero byte: clean column {options.label!r}")
    if task == "regression" and y.dtype.kind not in "iuf":
        y = _numbers_of(rows.column(options.label), options.label)
    if task == "multilabel":
        y, labels = label_sets(rows.column(options.label), options.label, options.label_separator)
    return y, task, labels


def _require_labels(column: pa.ChunkedArray, name: str) -> None:
    simple = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    if not any(is_kind(column.type) for is_kind in simple):
        raise TrainingDataError(f"labels must be text, numbers or booleans, and column {name!r} holds {column.type}")


def _numbers_of(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float64]:
    """Return the numbers of a column of text, such as ``1.10``. Raises TrainingDataError for any other value."""
    values = column.to_pylist()
    other = [value for value in values if not _is_number(value)]
    if other:
        raise TrainingDataError(
            f"regression needs numbers, and column {name!r} ({column.type}) has {counted(len(other), 'other value')}, "
            f"such as {other[0]!r}: correct them (`embedpipe label`), or predict classes "
            f"({option('task', 'classification')})"
        )
    return np.array([float(value) for value in values])


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(np.isfinite(float(value)))
    except ValueError:
        return False


def labelled_rows(
    store: FeatureStore, options: FitOptions, others: Sequence[str] = ()
) -> tuple[pa.Table, dict[str, int]]:
    """Return id, label, split, weight and other columns of the rows to learn from, and how many are left out, and why.

    Raises UsageError or TrainingDataError if a column is missing, or holds no labels.
    """
    label = options.label
    for name in (label, *([] if options.sample_weight is None else [options.sample_weight])):
        if name in store.data_columns:
            continue
        if name == "label":
            raise TrainingDataError(
                f"{store.path!r} has no labels: set them from a table with "
                f"`embedpipe label {shlex.quote(store.path)} LABELS.csv`, "
                f"or name another column ({option('label', ...)}) of {store.data_columns}"
            )
        require_column(
            name,
            store.data_columns,
            store.path,
            "label" if name == label else "sample_weight",
        )
    names = ["id", label, "split" if "split" in store.data_columns else None, options.sample_weight, *others]
    rows, excluded = used_rows(store.table, [*dict.fromkeys(name for name in names if name)])
    values = rows.column(label)
    _require_labels(values, label)
    labelled = rows.filter(pa.array(has_label(values)))
    missing = rows.num_rows - labelled.num_rows
    if not labelled.num_rows:
        raise TrainingDataError(
            f"no row of {store.path!r} has a value in column {label!r} ({rows.num_rows} rows{and_excluded(excluded)})"
        )
    left_out = {f"without a {label}": missing, LEFT_OUT: excluded}
    return labelled, {reason: count for reason, count in left_out.items() if count}


def _split_names(rows: pa.Table, options: FitOptions) -> npt.NDArray[Any] | None:
    if "split" not in rows.column_names or "split" in (options.label, options.sample_weight):
        return None
    return parse_split_names(rows.column("split").to_pylist())


#: Classes with fewer rows than folds are not measured, as long as they have no more than this share of the rows.
RARE_SHARE = 0.1


def _folds(y: npt.NDArray[Any], task: Task, options: FitOptions) -> tuple[list[Split], list[str]]:
    """Return the splits of the cross-validation, and a note on classes with fewer rows than folds: never test rows.

    Raises TrainingDataError if these are more than a tenth of the rows, or leave fewer than two classes to measure.
    """
    if not options.folds:
        return [], []
    rare: dict[Any, int] = {}
    if task == "classification":
        _check(y, task, options.label)
        counts = Counter(y.tolist())
        rare = {name: count for name, count in counts.items() if count < options.folds}
        if rare and (sum(rare.values()) > RARE_SHARE * len(y) or len(counts) - len(rare) < 2):
            name, fewest = min(counts.items(), key=lambda pair: pair[1])
            raise _too_few(f"class {name!r} of {options.label!r}", fewest, y, task, options)
    elif len(y) < options.folds:
        raise _too_few("the store", len(y), y, task, options)
    kind: Any = StratifiedKFold if task == "classification" else KFold
    splitter = kind(options.folds, shuffle=True, random_state=options.seed)
    if not rare:
        return list(splitter.split(y[:, None], y)), []
    unmeasured = np.isin(y, list(rare))
    never, rows = np.flatnonzero(unmeasured), np.flatnonzero(~unmeasured)
    splits = splitter.split(y[rows][:, None], y[rows])
    names = ", ".join(f"{name!r} ({counted(count, 'row')})" for name, count in sorted(rare.items())[:5])
    more = f" and {len(rare) - 5:,} more" if len(rare) > 5 else ""
    fewer = f", or use fewer folds ({option('folds', min(rare.values()))})" if min(rare.values()) > 1 else ""
    note = f"fitted but not measured, with fewer rows than the {options.folds} folds: {names}{more}. Label more{fewer}"
    return [(np.sort(np.concatenate([rows[train], never])), rows[test]) for train, test in splits], [note]


def _too_few(where: str, fewest: int, y: npt.NDArray[Any], task: Task, options: FitOptions) -> TrainingDataError:
    """Return the error that there are fewer rows than folds."""
    fewer = f"measure with {option('folds', fewest)}" if fewest > 1 else f"fit without measuring ({option('folds', 0)})"
    numbers = y.dtype.kind in "iuf" or (y.dtype.kind == "U" and all(map(_is_number, y.tolist())))
    as_numbers = f", or predict it as a number ({option('task', 'regression')})" if numbers else ""
    several = y.dtype.kind == "U" and any(options.label_separator in text for text in y.tolist())
    apart = f", or take the labels apart ({option('task', 'multilabel')})" if several else ""
    return TrainingDataError(
        f"{options.folds} folds need as many labelled rows, and {where} has {fewest}: "
        f"label more{', remove that class' if task == 'classification' else ''}, or {fewer}{as_numbers}{apart}"
    )


def _check(y: npt.NDArray[Any], task: Task, label: str) -> None:
    if task == "multilabel":
        return
    distinct = np.unique(y)
    if task == "classification" and len(distinct) < 2:
        raise TrainingDataError(
            f"a classifier needs two classes, and all {len(y)} labelled rows have the {label} {distinct[0].item()!r}"
        )
    if task == "regression" and len(y) < 2:
        raise TrainingDataError("regression needs two labelled rows, got 1: label more")


def label_sets(column: pa.ChunkedArray, name: str, separator: str) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Read texts such as ``red;round`` as sets of labels. A separator alone is an item without labels.

    Returns
    -------
    Y : bool array (n_samples, n_labels)
    labels : list of str
        Sorted.

    Raises
    ------
    TrainingDataError
        If the column is not text, has no label, or the separator occurs in no row.
    """
    if not pa.types.is_string(column.type):
        raise TrainingDataError(
            f"multilabel needs text such as 'red{separator}round' ({option('label_separator', ...)}), and column "
            f"{name!r} holds "
            f"{column.type} values"
        )
    texts = column.to_pylist()
    if not any(separator in text for text in texts):
        raise TrainingDataError(
            f"multilabel needs a separator of labels ({option('label_separator', ...)}) that occurs, and "
            f"{separator!r} occurs in "
            f"no value of column {name!r}, such as {max(texts, key=len)!r}: {_other_separator(texts)}"
        )
    sets = [{part.strip() for part in text.split(separator)} - {""} for text in texts]
    labels = sorted(set().union(*sets))
    if not labels:
        raise TrainingDataError(f"column {name!r} must name a label in some row: all texts are empty")
    position = {label: i for i, label in enumerate(labels)}
    Y = np.zeros((len(sets), len(labels)), bool)
    for row, names in enumerate(sets):
        Y[row, [position[label] for label in names]] = True
    return Y, labels


def _other_separator(texts: list[str]) -> str:
    """Return advice for labels among which the given separator does not occur."""
    if all(text.startswith("[") for text in texts):
        return "write lists as text such as red;round"
    counts = {sign: sum(sign in text for text in texts) for sign in _SEPARATORS}
    sign = max(counts, key=lambda sign: counts[sign])
    if counts[sign]:
        return f"{sign!r} occurs in {counts[sign]:,} of {len(texts):,}: give {option('label_separator', sign)}"
    return f"one label an item is {option('task', 'classification')}"


def sample_weights(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return the weights in a column, float64 (n_samples,).

    Raises TrainingDataError, naming the first such row, if a weight is missing, infinite or negative, or all are 0.
    """
    column = rows.column(name)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise TrainingDataError(f"weights must be numbers, and column {name!r} holds {column.type} values")
    weights: npt.NDArray[Any] = np.asarray(pc.cast(column, pa.float64()).combine_chunks().to_numpy(False))
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise TrainingDataError(
            f"weights must be numbers >= 0, and {int(bad.sum())} in column {name!r} are not, such as "
            f"{column[first].as_py()!r} of {rows.column('id')[first].as_py()!r}: set them "
            f"(`embedpipe label --into {shlex.quote(name)}`)"
        )
    if not weights.any():
        raise TrainingDataError(f"some weight in column {name!r} must be above 0: all are 0")
    return weights
