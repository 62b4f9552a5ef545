"""What an evaluation works on: the rows that all stores have, with one label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import TrainingDataError, UsageError, nearest
from embedpipe.evaluation.comparison.options import EvaluateOptions
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.training_data import labelled_rows, labels_of, read_finite
from embedpipe.splits.make import Splits, load_splits, make_splits
from embedpipe.splits.split_column import parse_split_names
from embedpipe.store import FeatureStore


@dataclass(frozen=True)
class Layer:
    """Vectors of one store that candidates work on.

    Attributes
    ----------
    store : FeatureStore
    specs : tuple of LayerSpec
        The store's layers that are joined end to end, in this order.
    """

    store: FeatureStore
    specs: tuple[LayerSpec, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers that are joined."""
        return tuple(spec.name for spec in self.specs)

    @property
    def dim(self) -> int:
        """Length of the joined vectors."""
        return sum(spec.dim for spec in self.specs)


@dataclass(frozen=True)
class EvaluationRows:
    """Rows in id order.

    Attributes
    ----------
    ids : pyarrow.Array of str
    uris, texts : list of str or None
        Where items are, and what they are where the store keeps texts.
    y : array (n,)
    task : str
    splits : Splits
    validation : bool array (n,)
        Rows of a published validation split, beside which there is a test split.
    left_out : dict
        Why rows of the first store take no part, and how many.
    layers : list of Layer
    """

    ids: pa.Array
    uris: list[str | None]
    texts: list[str | None]
    y: npt.NDArray[Any]
    task: Task
    splits: Splits
    validation: npt.NDArray[np.bool_]
    left_out: dict[str, int]
    layers: list[Layer]


def open_stores(stores: Any) -> list[FeatureStore]:
    """Return stores from paths, one or several; raise UsageError if there is none, or one is given twice."""
    given = [stores] if isinstance(stores, str | Path | FeatureStore) else list(stores)
    if not given:
        raise UsageError("there is no store to evaluate: give one at least")
    opened = [one if isinstance(one, FeatureStore) else FeatureStore(one) for one in given]
    if len({store.table_id for store in opened}) < len(opened):
        raise UsageError("the same store is given twice")
    return opened


def read_rows(stores: Sequence[FeatureStore], options: EvaluateOptions) -> EvaluationRows:
    """Find the rows that all stores have, their labels and their splits.

    Labels, groups and split names are the first store's; near-duplicates are looked for in its first embedding.

    Raises
    ------
    UsageError, TrainingDataError
        If a column is not there, stores have no rows in common or other labels for a row, or the labels cannot be
        learned from.
    """
    layers = _layers(stores, options)
    first = stores[0]
    chosen = FitOptions(label=options.label, task=options.task, layer="+".join(layers[0].names))
    extra = [options.group] if options.group else []
    if options.group and options.group not in first.data_columns:
        raise UsageError(
            f"{first.path!r} has no column {options.group!r}{nearest(options.group, first.data_columns)} (--group): "
            f"it has {first.data_columns}"
        )
    text = ["text"] if "text" in first.data_columns else []
    rows, left_out = labelled_rows(first, chosen, ["uri", *text, *extra])
    for store in stores[1:]:
        rows, missing = _common(rows, store, options.label, first)
        if missing:
            left_out[f"not in {store.path}"] = missing
    y, task, _ = labels_of(rows, chosen)
    ids = rows.column("id").combine_chunks()
    has_roles = "split" in rows.column_names and options.label != "split"
    roles = rows.column("split").to_pylist() if has_roles else None
    if options.splits is not None and Path(options.splits).exists():
        splits = load_splits(options.splits).for_ids(ids.to_pylist())
        _check_apart(splits, rows.column(options.group).to_pylist() if options.group else [], options)
        splits.notes.append(f"splits are those of {options.splits}, whatever folds, repeats and near_duplicates say")
    else:
        cosine = options.near_duplicates
        splits = make_splits(
            ids.to_pylist(),
            y,
            task=task,
            split=roles,
            groups=rows.column(options.group).to_pylist() if options.group else None,
            vectors=None if cosine == "off" else read_finite(first, layers[0].specs, ids),
            near_duplicates=None if cosine == "off" else cosine,
            folds=options.folds,
            repeats=options.repeats,
        )
        if options.splits is not None:
            splits.save(options.splits)
    for reason, which in splits.left_out.items():
        left_out[reason] = len(which)
    texts = rows.column("text").to_pylist() if text else [None] * len(ids)
    uris = rows.column("uri").to_pylist()
    return EvaluationRows(ids, uris, texts, y, task, splits, _validation(roles, len(ids)), left_out, layers)


def _check_apart(splits: Splits, groups: Sequence[Any], options: EvaluateOptions) -> None:
    """Raise UsageError if saved splits have rows of one of the user's groups on both sides."""
    for one in splits.resamples if groups else ():
        sides = [{groups[row] for row in rows.tolist()} - {None} for rows in (one.train, one.test)]
        if both := sides[0] & sides[1]:
            raise UsageError(
                f"the splits of {options.splits!r} have {len(both)} values of {options.group!r} both in training and "
                f"in test, such as {next(iter(both))!r}: name a new file, for splits that keep them together"
            )


def _validation(roles: Sequence[Any] | None, rows: int) -> npt.NDArray[np.bool_]:
    named = None if roles is None else parse_split_names(roles)
    return np.zeros(rows, bool) if named is None or "test" not in named else np.asarray(named == "validation", bool)


def _layers(stores: Sequence[FeatureStore], options: EvaluateOptions) -> list[Layer]:
    """Return the layers to compare: those named, of the stores that have them, or all."""
    if not options.layer:
        return [Layer(store, (spec,)) for store in stores for spec in store.spec.layers]
    layers = []
    for name in [options.layer] if isinstance(options.layer, str) else options.layer:
        able = [store for store in stores if {part.strip() for part in name.split("+")} <= store.layers.keys()]
        # One that no store has: the first says what there is.
        layers += [Layer(store, store.select_layers(name)) for store in able or stores[:1]]
    return layers


def _common(rows: pa.Table, store: FeatureStore, label: str, first: FeatureStore) -> tuple[pa.Table, int]:
    """Return the rows that another store has too, and how many it has not."""
    names = ["id", label] if label in store.data_columns else ["id"]
    theirs = store.to_arrow(names)
    at = pc.index_in(rows.column("id"), value_set=theirs.column("id").combine_chunks())
    both = rows.filter(pc.is_valid(at))
    if not both.num_rows:
        raise UsageError(f"{store.path!r} has none of the ids of {first.path!r}: embed the same items to compare them")
    if label in names:
        mine = both.column(label).to_pylist()
        other = theirs.column(label).take(at.drop_null()).to_pylist()
        labels = zip(both.column("id").to_pylist(), mine, other, strict=True)
        if differing := [id for id, a, b in labels if b is not None and a != b]:
            raise TrainingDataError(
                f"{len(differing)} items have another {label} in {store.path!r} than in {first.path!r}, such as "
                f"{differing[0]!r}: set both from one table with `embedpipe label`"
            )
    return both, rows.num_rows - both.num_rows
