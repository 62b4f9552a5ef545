"""Who is trained on, who stops the training, and who is read once at the end: one division for network and heads."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe.backbones.spec import FEATURES, LayerSpec
from embedpipe.errors import TrainingDataError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.comparison.rows import read_rows
from embedpipe.finetuning.options import SplitOptions
from embedpipe.splits.grouped import fold_numbers
from embedpipe.splits.splits import Splits
from embedpipe.store import FeatureStore

Rows = npt.NDArray[np.int64]
#: Share of the training rows that stops the training, where the store names no validation rows: one in so many.
PARTS = 5
#: Stands for the class of a row that takes no part, as its class has too few rows to be divided.
NO_CLASS = -1
#: What the split column says of the user's own shifted rows.
SHIFTED = "shifted"


@dataclass(frozen=True)
class SplitRows:
    """Rows of a store with one label each, in id order, and what each is for.

    Attributes
    ----------
    ids : pyarrow.Array of str
    uris : list of str or None
    hashes : list of str
        Of the contents that were embedded.
    y : int64 array (n_samples,)
        Positions in ``classes``; `NO_CLASS` of rows whose class has none to train on; those have no role.
    classes : array (n_classes,)
        Those of the training rows.
    train, validation, test : int64 array
        Positions; no row is in two of them, nor are near-duplicates or rows of a group on both sides.
    shifted : int64 array
        Positions of the user's own shifted test rows: those whose ``split`` is ``shifted``, in none of the others.
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
    """Return the features before the classifier, or where they are not stored, the last layer."""
    layers = store.spec.layers
    return next((layer for layer in layers if layer.name == FEATURES), layers[-1])


def read_split_rows(store: FeatureStore, label: str, options: SplitOptions) -> SplitRows:
    """Split the labelled rows of a store into train, validation and test rows, as `embedpipe.evaluate` does.

    Rows for validation are those that the store's ``split`` names so, or else a fifth of the training rows, with
    classes even and groups whole.

    Raises
    ------
    UsageError, TrainingDataError
        As `embedpipe.evaluate` does, or if no rows are left to train on.
    """
    chosen = EvaluateOptions(
        label=label,
        task="classification",
        group=options.group,
        near_duplicates=options.near_duplicates,
        layer=(network_layer(store).name,),
        repeats=1,
    )
    rows = read_rows([store], chosen, options.splits)
    one = rows.splits.resamples[0]
    names = _column(store, "split", rows.ids) if "split" in store.data_columns else [None] * len(rows.ids)
    shifted = np.array([str(name).strip().lower() == SHIFTED for name in names])
    groups = rows.splits.groups
    if one.tune and rows.validation[one.train].any():
        train, validation = (one.train[part] for part in one.tune[0])
    else:
        held = _held_out(rows.y[one.train], None if groups is None else groups[one.train], one.seed)
        train, validation = one.train[~held], one.train[held]
    if not len(train) or not len(validation):
        raise TrainingDataError(
            f"{len(one.train)} rows are too few to train on and to stop by: label more, or join fewer near-duplicates "
            "(--near-duplicates)"
        )
    hashes = _column(store, "content_hash", rows.ids)
    train, validation, test = (part[~shifted[part]] for part in (train, validation, one.test))
    train, validation = _all_learned(rows.y, groups, train, validation)
    classes = np.unique(rows.y[train])
    y = np.where(np.isin(rows.y, classes), np.searchsorted(classes, rows.y), NO_CLASS)
    others = np.flatnonzero(shifted)
    unknown = np.setdiff1d(rows.y[np.concatenate([validation, test, others])], classes).tolist()
    splits = rows.splits
    if unknown:
        note = f"rows of {', '.join(map(repr, unknown))} are left out: none of them is left to train on"
        splits = dataclasses.replace(splits, notes=[*splits.notes, note])
    validation, test, others = (part[y[part] != NO_CLASS] for part in (validation, test, others))
    if not len(validation) or not len(test):
        raise TrainingDataError("no row of a class that is trained on is left to stop by or to test on: label more")
    return SplitRows(rows.ids, rows.uris, hashes, y.astype(np.int64), classes, train, validation, test, others, splits)


def _all_learned(y: npt.NDArray[Any], groups: Rows | None, train: Rows, validation: Rows) -> tuple[Rows, Rows]:
    """Let rows for validation be trained on, with their groups, if others are left and their class has no other."""
    needed = ~np.isin(y[validation], y[train])
    if groups is not None:
        needed = np.isin(groups[validation], groups[validation[needed]])
    if needed.all():
        return train, validation
    return np.sort(np.concatenate([train, validation[needed]])), validation[~needed]


def _held_out(y: npt.NDArray[Any], groups: Rows | None, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows are for validation: if others are left, none of a class that would have no row to train on."""
    held = np.asarray(
        fold_numbers(np.unique(y, return_inverse=True)[1], groups, PARTS, np.random.default_rng(seed)) == 0
    )
    needed = ~np.isin(y, y[~held])
    others = held & ~(needed if groups is None else np.isin(groups, groups[needed]))
    return others if others.any() else held


def _column(store: FeatureStore, name: str, ids: pa.Array) -> list[Any]:
    table = store.to_arrow(["id", name])
    known = dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))
    return [known[id] for id in ids.to_pylist()]
