"""Rows of an evaluation: those that all stores have, with one label each, and their splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.folder_kinds import check_name, refuse_url
from embedpipe._utils.machine.memory import memory_left, parse_size
from embedpipe._utils.option_names import has_option, option
from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import UsageError
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.evaluation.shared_rows import check_labels, shared_rows
from embedpipe.heads.columns.table_columns import (
    TableColumn,
    Values,
    column_values,
    leak_notes,
    learn_columns,
    value_notes,
)
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.training.training_data import labelled_rows, labels_of
from embedpipe.heads.training.vectors import fits_memory, map_finite, read_finite
from embedpipe.neighbours.duplicates import search_bytes
from embedpipe.neighbours.exact import Vectors
from embedpipe.report.drawing.wording import size
from embedpipe.splits.make import Splits, load_splits, make_splits
from embedpipe.splits.split_column import parse_split_names
from embedpipe.splits.stored_hashes import stored_hashes
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store
from embedpipe.store.schema import require_column


@dataclass(frozen=True)
class Layer:
    """Vectors of one store: those of one layer, or of several joined.

    Attributes
    ----------
    store : FeatureStore
    specs : tuple of LayerSpec
        Layers of the store whose vectors are concatenated, in this order.
    """

    store: FeatureStore
    specs: tuple[LayerSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(spec.name for spec in self.specs)

    @property
    def dim(self) -> int:
        """Length of the concatenated vectors."""
        return sum(spec.dim for spec in self.specs)


@dataclass(frozen=True)
class EvaluationRows:
    """Rows in the order of their ids.

    Attributes
    ----------
    ids : pyarrow.Array of str
    items : pyarrow.Table
        ``uri``, and ``text`` if the store has texts.
    y : array (n,)
        Labels.
    task : str
    splits : Splits
    validation : bool array (n,)
        Rows of the validation split of a store that also has a test split.
    left_out : dict
        Reason -> number of rows of the first store that take no part.
    layers : list of Layer
    columns : tuple of TableColumn
        The columns beside the vectors that heads may learn from too.
    values : float32 array (n, n_columns)
    """

    ids: pa.Array
    items: pa.Table
    y: npt.NDArray[Any]
    task: Task
    splits: Splits
    validation: npt.NDArray[np.bool_]
    left_out: dict[str, int]
    layers: list[Layer]
    columns: tuple[TableColumn, ...]
    values: Values


def open_stores(stores: Any) -> list[FeatureStore]:
    """Open one or several stores; raise UsageError if there is none, or one is given twice."""
    opened_or_paths = [stores] if isinstance(stores, str | Path | FeatureStore) else list(stores)
    if not opened_or_paths:
        raise UsageError("stores must name at least one feature store, got none")
    opened = [open_store(store) for store in opened_or_paths]
    if len({store.table_id for store in opened}) < len(opened):
        raise UsageError(f"stores must be different, got one twice: {', '.join(store.path for store in opened)}")
    return opened


def read_rows(
    stores: Sequence[FeatureStore], options: EvaluateOptions, splits: str | Path | Splits | None = None
) -> EvaluationRows:
    """Read the rows that all stores have, their labels and their splits.

    Labels, groups, split names and features are those of the first store. Near-duplicates are found by its first layer.

    Parameters
    ----------
    stores : sequence of FeatureStore
    options : EvaluateOptions
    splits : path or Splits, optional
        As of `embedpipe.evaluate`.

    Raises
    ------
    UsageError
        If a column or layer is missing, the stores have no rows in common, or the splits do not fit the rows.
    TrainingDataError
        If stores have different labels for a row, or the labels cannot be learned.
    """
    layers = _layers(stores, options)
    first = stores[0]
    fit_options = FitOptions(label=options.label, task=options.task, layer="+".join(layers[0].names))
    if options.group:
        require_column(options.group, first.data_columns, first.path, "group")
    text = ["text"] if "text" in first.data_columns else []
    for name in options.features:
        require_column(name, first.data_columns, first.path, "features")
    others = ["uri", *text, *([options.group] if options.group else []), *options.features]
    rows, left_out = labelled_rows(first, fit_options, others)
    shared = shared_rows(rows.column("id").combine_chunks(), first, stores[1:])
    rows, left_out = rows.filter(pa.array(shared.kept)), left_out | shared.left_out
    check_labels(rows, options.label, first, stores[1:])
    y, task, _ = labels_of(rows, fit_options)
    ids = rows.column("id").combine_chunks()
    columns = learn_columns(rows, options.features, (options.label, options.group))
    values = column_values(columns, rows)
    column_notes = value_notes(columns, values) + leak_notes(columns, values, y)
    has_split = "split" in rows.column_names and options.label != "split"
    split_names = rows.column("split").to_pylist() if has_split else None
    groups = rows.column(options.group).to_pylist() if options.group else None
    if (given_splits := _given_splits(splits)) is not None:
        used_splits = given_splits.for_ids(ids.to_pylist())
        _check_groups(used_splits, groups, options.group)
        source = "given" if isinstance(splits, Splits) else f"those of {splits}"
        unused = f"{option('folds')}, {option('repeats')} and " * has_option("folds")
        verb = "are" if unused else "is"
        note = f"splits are {source}: {unused}{option('near_duplicates')} {verb} not used"
        used_splits = replace(used_splits, notes=[*used_splits.notes, note])
    else:
        vectors, cosine, notes = _vectors_to_group(first, layers[0], ids, options)
        used_splits = make_splits(
            ids.to_pylist(),
            y,
            task=task,
            split=split_names,
            groups=groups,
            vectors=vectors,
            near_duplicates=cosine,
            hashes=None if vectors is None else stored_hashes(first, ids),
            folds=options.folds,
            repeats=options.repeats,
            seed=options.seed,
        )
        if splits is not None and not isinstance(splits, Splits):
            used_splits.save(splits)
        used_splits = replace(used_splits, notes=[*used_splits.notes, *notes])
    used_splits = replace(used_splits, notes=[*used_splits.notes, *shared.notes, *column_notes])
    for reason, positions in used_splits.left_out.items():
        left_out[reason] = len(positions)
    items, validation = rows.select(["uri", *text]), _validation_rows(split_names, len(ids))
    return EvaluationRows(ids, items, y, task, used_splits, validation, left_out, layers, columns, values)


def _vectors_to_group(
    store: FeatureStore, layer: Layer, ids: pa.Array, options: EvaluateOptions
) -> tuple[Vectors | None, float | Literal["copies"] | None, list[str]]:
    """Return the vectors whose near-duplicates stay together, the cosine, and a note if only copies can be found."""
    if options.near_duplicates == "off":
        return None, None, []
    if fits_memory(len(ids), layer.dim, options.memory):
        return read_finite(store, layer.specs, ids), options.near_duplicates, []
    vectors, needed = map_finite(store, layer.specs, ids, options.memory), search_bytes(len(ids), layer.dim)
    if needed <= max(0, memory_left(parse_size("memory", options.memory))):
        return vectors, options.near_duplicates, []
    note = (
        f"near-duplicates of {len(ids):,} rows are not looked for, only exact copies: their search needs about "
        f"{size(needed)}. Give more {option('memory')}, or groups ({option('group')})"
    )
    return vectors, "copies", [note]


def _given_splits(splits: str | Path | Splits | None) -> Splits | None:
    """Return splits that exist already; None for those that are to be made."""
    if splits is None or isinstance(splits, Splits):
        return splits
    if not isinstance(splits, str | Path):
        raise UsageError(f"{option('splits')} must be a path or a Splits, got {splits!r}")
    refuse_url(splits, f"{option('splits')} must be a local file")
    return load_splits(splits) if check_name(splits).exists() else None


def _check_groups(splits: Splits, groups: Sequence[Any] | None, name: str | None) -> None:
    """Raise UsageError if splits have rows of one group both in training and in test."""
    if groups is None:
        return
    for resample in splits.resamples:
        train, test = ({groups[row] for row in rows.tolist()} - {None} for rows in (resample.train, resample.test))
        if shared := train & test:
            raise UsageError(
                f"{option('splits')} must keep rows of one {name!r} together, and {len(shared)} values are both in "
                "training and "
                f"in test, such as {next(iter(shared))!r}: make new splits, with a new file name"
            )


def _validation_rows(split_names: Sequence[Any] | None, rows: int) -> npt.NDArray[np.bool_]:
    names = None if split_names is None else parse_split_names(split_names)
    return np.zeros(rows, bool) if names is None or "test" not in names else np.asarray(names == "validation", bool)


def _layers(stores: Sequence[FeatureStore], options: EvaluateOptions) -> list[Layer]:
    """Return the layers to compare: those of ``options``, in the stores that have them, or all."""
    if not options.layer:
        return [Layer(store, (spec,)) for store in stores for spec in store.spec.layers]
    layers = []
    for name in [options.layer] if isinstance(options.layer, str) else options.layer:
        having = [store for store in stores if {part.strip() for part in name.split("+")} <= store.layers.keys()]
        # For a layer that no store has, the first store raises the error and lists its layers.
        layers += [Layer(store, store.select_layers(name)) for store in having or stores[:1]]
    return layers
