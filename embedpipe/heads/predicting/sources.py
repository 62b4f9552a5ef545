"""What a head predicts: rows of a store, items that are embedded for it, and vectors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.checksums import row_checksums
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.reload import options_from_spec
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import Failure, UsageError
from embedpipe.heads.columns.table_columns import (
    TableColumn,
    column_values,
    join_columns,
    require_columns,
    value_notes,
)
from embedpipe.heads.predicting.predictions import Predictions
from embedpipe.heads.training.vectors import vectors_to_predict
from embedpipe.sources.listing import numbered
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions, modality_of
from embedpipe.sources.vectors.vector_rows import list_vectors
from embedpipe.sources.vectors.vector_source import SUFFIXES, open_vectors
from embedpipe.store import FeatureStore


class Predicted(NamedTuple):
    """Predictions, the ids, URIs, hashes, labels and texts of the items in the same order, what failed, and remarks."""

    predictions: Predictions
    rows: pa.Table
    failures: list[Failure]
    notes: list[str]


#: Makes the predictions, still empty, of a number of rows.
Make = Callable[[int], Predictions]


def predict_rows(
    spec: BackboneSpec, columns: Sequence[TableColumn], store: FeatureStore, label: str, make: Make
) -> Predicted:
    """Predict the rows of a store of the head's backbone, but those that failed in a later run."""
    require_columns(columns, store.data_columns, repr(store.path))
    names = ["id", "uri", "stage", "exception", "message"]
    failures = [Failure(*row.values()) for row in store.failures().select(names).to_pylist()]
    others = [name for name in (label, *(["text"] if spec.modality == "text" else [])) if name in store.data_columns]
    others += [column.name for column in columns]
    rows = store.to_arrow(["id", "uri", "content_hash", *dict.fromkeys(others)])
    values = column_values(columns, rows)
    ids = rows.column("id").combine_chunks()
    # An item that failed in a later run still has the vector of its earlier version.
    failed = pa.array([failure.id for failure in failures], pa.string())
    good = ~np.asarray(pc.is_in(ids, value_set=failed))
    predictions = make(len(ids))
    for part, vectors in vectors_to_predict(store, spec.layers, ids):
        X = join_columns(vectors, values[part])
        predictions.add(np.arange(len(ids))[part][good[part]], X if good[part].all() else X[good[part]])
    return Predicted(predictions, rows, failures, value_notes(columns, values))


def predict_vectors(
    spec: BackboneSpec, columns: Sequence[TableColumn], source: Any, options: SourceOptions, make: Make, hashed: bool
) -> Predicted:
    """Predict vectors that were made elsewhere, as those of the head. Without ids they are numbered.

    Vectors are hashed only on demand: a head whose store is not here cannot tell which it was fitted on.
    Raises UsageError for anything else, and for vectors of another length.
    """
    is_path = isinstance(source, str | os.PathLike)
    is_array = hasattr(source, "__array__") or hasattr(source, "__arrow_c_stream__") or _is_numbers(source)
    if not (os.fspath(source).lower().endswith(SUFFIXES) if is_path else is_array):
        options_from_spec(spec)  # raises, and says why photos or texts cannot be predicted
    vectors = open_vectors(source, id=options.id)
    (given,) = spec.captured.layers
    if vectors.dim != given.dim:
        raise UsageError(
            f"vectors must have {given.dim:,} values, as those of the head, and {vectors.name} has {vectors.dim:,}"
        )
    known = options.id or next((name for name in vectors.columns if name.strip().lower() == "id"), None)
    ids = known if known is not None else numbered("", vectors.count)
    rows = list_vectors(vectors, ids, options.label, options.split, names=("id", "label")).table
    require_columns(columns, rows.column_names, vectors.name)
    values = column_values(columns, rows)
    predictions, hashes = make(vectors.count), list[str]()
    for start, block in vectors.blocks():
        part = slice(start, start + len(block))
        if hashed:
            hashes += row_checksums(block)  # as `import_vectors` stores them
        X = np.hstack(list(spec.vectors({given.column: block}).values()))
        predictions.add(part, join_columns(X, values[part]))
    rows = rows.select(["id", "uri", "label"])
    if hashed:
        rows = rows.append_column("content_hash", pa.array(hashes, pa.string()))
    return Predicted(predictions, rows, [], value_notes(columns, values))


def predict_items(
    spec: BackboneSpec,
    columns: Sequence[TableColumn],
    source: Any,
    options: SourceOptions,
    reload_options: ReloadOptions,
    compute: ComputeOptions,
    show: Progress,
    make: Make,
) -> Predicted:
    """Embed images or texts with the backbone of the head, and predict them."""
    from embedpipe.backbones import reload_backbone  # needs torch, which predicting a store does not
    from embedpipe.embedding import stream_vectors

    if isinstance(source, np.ndarray) and source.dtype.kind == "f":
        raise UsageError(
            f"source must hold {spec.modality}s, got an array of {source.dtype}: predict vectors by "
            "head.estimator.predict(X)"
        )
    with modality_of("the head"):
        listing = open_source(source, options, spec.modality)
    require_columns(columns, listing.table.column_names, repr(listing.root))
    values = column_values(columns, listing.table)
    backbone = reload_backbone(spec, reload_options, compute.device, "the head")
    predictions = make(len(listing))
    failures: list[Failure] = []
    texts: list[str | None] = [None] * len(listing)
    hashes: list[str | None] = [None] * len(listing)
    messages = stream_vectors(listing, backbone, compute, show)
    with contextlib.closing(messages):
        for message in messages:
            if isinstance(message, Failure):
                failures.append(message)
            else:
                for row, text, digest in zip(message.rows, message.texts, message.hashes, strict=True):
                    texts[row], hashes[row] = text, digest
                vectors = np.hstack([message.vectors[layer.column] for layer in spec.layers])
                predictions.add(message.rows, join_columns(vectors, values[message.rows]))
    rows = listing.table.select(["id", "uri", "label"]).append_column("content_hash", pa.array(hashes, pa.string()))
    if spec.modality == "text":
        rows = rows.append_column("text", pa.array(texts, pa.string()))
    return Predicted(predictions, rows, failures, value_notes(columns, values))


def _is_numbers(source: Any) -> bool:
    """Return whether a sequence holds sequences of numbers."""
    first = source[0] if isinstance(source, list | tuple) and source else None
    return isinstance(first, list | tuple) and bool(first) and isinstance(first[0], int | float)
