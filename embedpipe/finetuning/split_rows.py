"""Training, validation and test rows of a store: one split for the network and the heads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import fixed_options, option
from embedpipe.backbones.spec import FEATURES, LayerSpec
from embedpipe.errors import TrainingDataError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import read_rows
from embedpipe.finetuning.options import SplitOptions
from embedpipe.report.drawing.wording import counted
from embedpipe.splits.grouped import fold_numbers
from embedpipe.splits.splits import Splits
from embedpipe.store import FeatureStore

Rows = npt.NDArray[np.int64]
#: One row in this many of the training rows is a validation row if the store names none.
VALIDATION_FOLDS = 5
#: Class number of rows that are left out because their class has no training rows.
NO_CLASS = -1
#: Value of the ``split`` column of test rows from shifted data.
SHIFTED = "shifted"


@dataclass(frozen=True)
class SplitRows:
    """The labelled rows of a store in id order, split into training, validation and test rows.

    Attributes
    ----------
    ids : pyarrow.Array of str
    uris : list of str or None
    hashes : list of str
        Content hashes of the embedded items.
    y : int64 array (n_samples,)
        Positions in ``classes``; `NO_CLASS` for rows that are left out because their class has no training rows.
    classes : array (n_classes,)
        The classes of the training rows, sorted.
    train, validation, test : int64 array
        Positions of rows, disjoint; near-duplicates and the rows of a group are in the same one.
    shifted : int64 array
        Positions of test rows from shifted data, whose ``split`` is ``shifted``; disjoint from the others.
    splits : Splits
        Its first resample has ``train`` and ``validation`` on one side and ``test`` on the other.
    """

    ids: pa.Array
    uris: list[str | None]
    hashes: list[str]
    y: Rows
    classes: npt.NDArray[np.generic]
    train: Rows
    validation: Rows
    test: Rows
    shifted: Rows
    splits: Splits


def network_layer(store: FeatureStore) -> LayerSpec:
    """Return the layer of the features before the classifier or, if it is not stored, the last layer."""
    layers = store.spec.captured.layers
    return next((layer for layer in layers if layer.name == FEATURES), layers[-1])


def read_split_rows(store: FeatureStore, label: str, options: SplitOptions) -> SplitRows:
    """Split the labelled rows of a store into training, validation and test rows, as `embedpipe.evaluate` does.

    The validation rows are those of the store's ``split`` column or, without them, a fifth of the training rows,
    stratified and with whole groups.

    Raises
    ------
    UsageError, TrainingDataError
        As in `embedpipe.evaluate`, or if there are no training, validation or test rows.
    """
    evaluate_options = EvaluateOptions(
        label=label,
        task="classification",
        group=options.group,
        near_duplicates=options.near_duplicates,
        layer=(network_layer(store).name,),
        repeats=1,
    )
    with fixed_options("task", "folds"):
        rows = read_rows([store], evaluate_options, options.splits)
    resample = rows.splits.resamples[0]
    names = _column(store, "split", rows.ids) if "split" in store.data_columns else [None] * len(rows.ids)
    is_shifted = np.array([str(name).strip().lower() == SHIFTED for name in names])
    groups = rows.splits.groups
    if resample.tune and rows.validation[resample.train].any():
        train, validation = (resample.train[part] for part in resample.tune[0])
    else:
        fold_groups = None if groups is None else groups[resample.train]
        held_out = _draw_fifth(rows.y[resample.train], fold_groups, np.random.default_rng(resample.seed))
        train, validation = resample.train[~held_out], resample.train[held_out]
    if not len(train) or not len(validation):
        raise TrainingDataError(
            f"{len(resample.train)} rows are too few for training and validation rows: label more, or raise "
            f"{option('near_duplicates')}"
        )
    hashes = _column(store, "content_hash", rows.ids)
    train, validation, test = (part[~is_shifted[part]] for part in (train, validation, resample.test))
    train, validation = _move_missing_classes(rows.y, groups, train, validation)
    classes = np.unique(rows.y[train])
    y = np.where(np.isin(rows.y, classes), np.searchsorted(classes, rows.y), NO_CLASS)
    shifted = np.flatnonzero(is_shifted)
    unknown = np.setdiff1d(rows.y[np.concatenate([validation, test, shifted])], classes).tolist()
    splits = rows.splits  # whose notes say what it leaves out itself
    others = {reason: count for reason, count in rows.left_out.items() if reason not in splits.left_out}
    left_out = (f"left out: {counted(count, 'row')} {reason}" for reason, count in others.items())
    splits = dataclasses.replace(splits, notes=[*splits.notes, *left_out])
    if unknown:
        note = f"rows of {', '.join(map(repr, unknown))} are left out: the class has no training rows"
        splits = dataclasses.replace(splits, notes=[*splits.notes, note])
    validation, test, shifted = (part[y[part] != NO_CLASS] for part in (validation, test, shifted))
    if not len(validation) or not len(test):
        raise TrainingDataError(
            "validation and test rows must have classes of the training rows, and none are left: label more"
        )
    uris = rows.items.column("uri").to_pylist()
    return SplitRows(rows.ids, uris, hashes, y.astype(np.int64), classes, train, validation, test, shifted, splits)


def hold_out_training_rows(split: SplitRows) -> SplitRows:
    """Return a split whose test rows are a fifth of the training and validation rows, with whole groups.

    Experiments on it do not read the test rows.

    Raises TrainingDataError if too few rows are left.
    """
    pool = np.sort(np.concatenate([split.train, split.validation]))
    resample, groups = split.splits.resamples[0], split.splits.groups
    rng = np.random.default_rng([resample.seed, 1])  # other rows than the validation rows, which are drawn alike
    held_out = pool[_draw_fifth(split.y[pool], None if groups is None else groups[pool], rng)]
    train, validation = np.setdiff1d(split.train, held_out), np.setdiff1d(split.validation, held_out)
    held_out = held_out[np.isin(split.y[held_out], split.y[train])]
    if not len(train) or not len(validation) or not len(held_out):
        raise TrainingDataError(
            f"{len(pool)} training and validation rows are too few to hold out a fifth of them: label more, or raise "
            f"{option('near_duplicates')}"
        )
    return dataclasses.replace(split, train=train, validation=validation, test=held_out)


def _move_missing_classes(y: npt.NDArray[Any], groups: Rows | None, train: Rows, validation: Rows) -> tuple[Rows, Rows]:
    """Move validation rows whose class has no training rows, with their groups, to training, unless that moves all."""
    moved = ~np.isin(y[validation], y[train])
    if groups is not None:
        moved = np.isin(groups[validation], groups[validation[moved]])
    if moved.all():
        return train, validation
    return np.sort(np.concatenate([train, validation[moved]])), validation[~moved]


def _draw_fifth(y: npt.NDArray[Any], groups: Rows | None, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Draw rows to hold out; a class that would have no other rows is left out of them, unless no others remain."""
    held_out = np.asarray(fold_numbers(np.unique(y, return_inverse=True)[1], groups, VALIDATION_FOLDS, rng) == 0)
    needed = ~np.isin(y, y[~held_out])
    others = held_out & ~(needed if groups is None else np.isin(groups, groups[needed]))
    return others if others.any() else held_out


def _column(store: FeatureStore, name: str, ids: pa.Array) -> list[Any]:
    """Return the values of a column in the order of the ids."""
    table = store.to_arrow(["id", name])
    values = dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))
    return [values[id] for id in ids.to_pylist()]
