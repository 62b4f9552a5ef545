"""A head of class names for a store: which classes, their vectors, and a head where there are no labels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.errors import UsageError
from embedpipe.heads.head import Head
from embedpipe.heads.options import FitOptions
from embedpipe.heads.scoring import FitReport
from embedpipe.heads.training.vectors import vectors_to_predict
from embedpipe.heads.zero_shot.prompts import class_words
from embedpipe.heads.zero_shot.text_heads import embed_classes, is_text_head, make_text_head, refuse_names
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import used_rows


def check_text_options(head: Any, options: FitOptions) -> None:
    """Raise UsageError for classes of another head, and for options that a head of class names does not take."""
    if not is_text_head(head):
        refuse_names(options.classes, options.templates)
        return
    if options.task not in (None, "classification"):
        raise UsageError(f"head {head!r} is not for {options.task}: choose another {option('head')}")
    if options.remove_components:
        raise UsageError(
            f"{head} compares vectors with those of class names, from which nothing is removed: leave "
            f"{option('remove_components')} out"
        )


def text_estimator(
    store: FeatureStore, head: str, options: FitOptions, reload_options: ReloadOptions, show: Progress
) -> tuple[Any, bool]:
    """Return the unfitted estimator of a head of class names, and whether the store has labels.

    Raises
    ------
    UsageError
        If there are neither labels nor classes, the labels are numbers or not among the classes, or the backbone
        embeds no texts.
    """
    labels: list[str] = []
    if options.label in store.data_columns:
        column = used_rows(store.table, [options.label])[0].column(0)
        if column.null_count < len(column) and not pa.types.is_string(column.type):
            raise UsageError(
                f"{head} needs labels that are words, and column {options.label!r} holds {column.type}: write them as "
                "text (`embedpipe label`)"
            )
        labels = sorted(pc.unique(column.drop_null()).to_pylist()) if column.null_count < len(column) else []
    if not labels and not options.classes:
        raise UsageError(
            f"{store.path!r} has no labels in {options.label!r}: name the classes ({option('classes', 'cat,dog')})"
        )
    words = class_words(options.classes, labels)
    spec = store.spec.only(*(layer.name for layer in store.select_layers(options.layer)))
    vectors = embed_classes(spec, [*words.values()], options.templates, reload_options, show)
    return make_text_head(head, vectors, [*words], spec.modality), bool(labels)


def unlabelled_head(store: FeatureStore, head: str, estimator: Any, options: FitOptions) -> Head:
    """Return a head that has seen no label: neither measured, nor calibrated."""
    layers = store.select_layers(options.layer)
    first = pa.array(store.ids()[:1], pa.string())
    for _, X in vectors_to_predict(store, layers, first):
        estimator.fit(X)
    classes = estimator.classes_.tolist()
    note = f"there are no labels: the head is not measured, and its temperature is the usual {estimator.temperature:g}"
    return Head(
        name=head,
        estimator=estimator,
        spec=store.spec.only(*(layer.name for layer in layers)),
        label=options.label,
        store=store.path,
        store_id=store.table_id,
        store_version=store.version,
        report=FitReport("classification", "none", 0, classes=classes, notes=[note]),
        label_separator=options.label_separator,
    )
