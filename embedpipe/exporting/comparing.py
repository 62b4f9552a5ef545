"""Comparison of an exported model with the head that it was made of, first on items that it was not fitted on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.backbone import Backbone
from embedpipe.errors import EmbedpipeError, HeadError, ItemError, StoreError, UsageError
from embedpipe.exporting.network import output_kind
from embedpipe.exporting.result import Comparison
from embedpipe.finetuning.source import item_reader
from embedpipe.heads.head import Head
from embedpipe.heads.training.training_data import fitted_ids
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics import paired_interval
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import excluded_rows, require_some_used
from embedpipe.store.scan import has_label

Floats = npt.NDArray[np.float64]
#: Runs an exported model: tensors by name -> outputs (n, n_outputs).
Model = Callable[[dict[str, npt.NDArray[Any]]], npt.NDArray[Any]]

#: Largest difference of a probability, or of a score or number relative to the largest one.
TOLERANCE = 1e-4
#: Largest share of right answers that float16 or int8 may lose, by the bound of its interval.
LARGEST_LOSS = 0.01
#: Largest difference of a number as a share of the spread of all numbers: more may cost a point of R squared.
LARGEST_MOVE = 0.1
#: Most items on which the accuracy of float16 and int8 is measured.
MOST_MEASURED = 5_000
#: Items in a forward pass.
BATCH = 16


@dataclass(frozen=True)
class Rows:
    """Rows of the head's store: ids, labels, on how many of the first it was not fitted, and how they are read."""

    ids: list[str]
    labels: list[Any]
    held_out: int
    read: Callable[[int], Any]

    def __len__(self) -> int:
        return len(self.ids)


def open_rows(head: Head, store: FeatureStore | str | os.PathLike[str] | None) -> FeatureStore:
    """Return the store with the rows to compare on. Raises UsageError if it is missing, or of another backbone."""
    try:
        opened = store if isinstance(store, FeatureStore) else FeatureStore(os.fspath(store or head.store))
    except StoreError as error:
        raise UsageError(
            f"an exported model is compared with its head on rows of the store, and {head.store!r} cannot be read "
            f"({error}): name it, or another one of the same backbone ({option('store', ...)})"
        ) from error
    head.spec.require(
        opened.spec.only(*head.layers),
        f"the head was fitted on vectors of another backbone spec than those of {opened.path!r}",
        "in the head",
        "in the store",
        f"Name a store of the same backbone ({option('store', ...)}).",
    )
    return opened


def split_rows(head: Head, store: FeatureStore, seed: int = 0) -> tuple[Rows, Rows]:
    """Return the rows to compare on, held-out ones first, and the rows that the head was fitted on.

    Where there are held-out rows, others have no label, as accuracy on them says nothing. Excluded rows are in neither.
    """
    label = [head.label] if head.label in store.data_columns else []
    table = store.to_arrow(["id", "uri", "content_hash", *label])
    used = np.ones(len(table), bool)
    used[excluded_rows(store.table)] = False
    table = table.filter(pa.array(used))
    require_some_used(store.table, table.num_rows)
    if head.report.rows and store.table_id == head.store_id:
        fitted = fitted_ids(store, head.store_version, head.label, head.report.measured_on)
        is_fitted = np.asarray(pc.is_in(table["id"].combine_chunks(), value_set=fitted))
    else:
        is_fitted = np.zeros(len(table), bool)
    held_out = np.flatnonzero(~is_fitted)
    if label:  # those with labels first, as they measure the accuracy too
        known = has_label(table[head.label])[held_out]
        held_out = held_out[known] if known.any() else held_out
    random = np.random.default_rng(seed)
    first, second = (random.permutation(part) for part in (held_out, np.flatnonzero(is_fitted)))
    both = _rows(table.take(pa.array(np.concatenate([first, second]))), label, head, len(first))
    return both, _rows(table.take(pa.array(second)), label, head, 0)


def _rows(table: pa.Table, label: Sequence[str], head: Head, held_out: int) -> Rows:
    labels = table[label[0]].to_pylist() if label else [None] * len(table)
    if held_out:
        labels[held_out:] = [None] * (len(table) - held_out)
    read = item_reader(table["uri"].to_pylist(), table["content_hash"].to_pylist(), head.spec.modality)
    return Rows(table["id"].to_pylist(), labels, held_out, read)


@dataclass(frozen=True)
class Expected:
    """Prepared items with the head's outputs: tensors of batches by name, outputs (n, n_outputs), and their rows."""

    batches: list[dict[str, npt.NDArray[Any]]]
    outputs: Floats
    ids: list[str]
    labels: list[Any]
    held_out: int
    failed: int


def expect(head: Head, backbone: Backbone, rows: Rows, count: int, show: Progress) -> Expected:
    """Read up to ``count`` rows and predict them with the head by torch."""
    batches: list[dict[str, npt.NDArray[Any]]] = []
    outputs: list[Floats] = []
    places: list[int] = []
    failed = 0
    wanted = min(count, len(rows))
    with show.step("predicting with the head", wanted, f"{head.spec.modality}s") as advance:
        values: list[Any] = []

        def finish() -> None:
            if values:
                batches.append(tensors_of(backbone, values))
                X = np.hstack([backbone.forward(values)[layer.column] for layer in head.spec.layers])
                outputs.append(outputs_of(head, X))
                values.clear()

        for place in range(len(rows)):
            if len(places) == wanted:
                break
            try:
                values.append(backbone.prepare(rows.read(place)).value)
            except (ItemError, EmbedpipeError):
                failed += 1
                continue
            places.append(place)
            advance()
            if len(values) == BATCH:
                finish()
        finish()
    if not places:
        raise UsageError(
            f"an exported model is compared with its head, and none of the {len(rows):,} {head.spec.modality}s of the "
            f"store can be read: put them back, or name another store of the same backbone ({option('store', ...)})"
        )
    ids, labels = [rows.ids[i] for i in places], [rows.labels[i] for i in places]
    held_out = sum(place < rows.held_out for place in places)
    return Expected(batches, np.concatenate(outputs), ids, labels, held_out, failed)


def tensors_of(backbone: Backbone, values: list[Any]) -> dict[str, npt.NDArray[Any]]:
    """Return a batch of prepared items as arrays by the names of the inputs."""
    if backbone.spec.modality == "image":
        return {"pixels": np.stack(values)}
    pieces = [piece for tokens in values for piece in tokens.pieces]
    collated = backbone.network.tokenizer.collate(pieces)  # type: ignore[union-attr]
    return {name: tensor.numpy() for name, tensor in collated.items()}


def outputs_of(head: Head, X: npt.NDArray[np.float32]) -> Floats:
    """Return what the exported model has to give for vectors, (n, n_outputs)."""
    estimator, kind = head.estimator, output_kind(head)
    methods = {"probabilities": "predict_proba", "scores": "decision_function", "numbers": "predict"}
    return np.asarray(getattr(estimator, methods[kind])(X), np.float64).reshape(len(X), -1)


def compare(head: Head, expected: Expected, model: Model, show: Progress, *, exact: bool = True) -> Comparison:
    """Run an exported model on the same items, and compare; not ``exact``: bound the accuracy that is lost."""
    parts = []
    with show.step("predicting with the exported model", len(expected.ids), f"{head.spec.modality}s") as advance:
        for batch in expected.batches:
            parts.append(np.asarray(model(batch), np.float64))
            advance(len(parts[-1]))
    outputs, wanted = np.concatenate(parts), expected.outputs
    if outputs.shape != wanted.shape or not np.isfinite(outputs).all():
        raise HeadError(
            f"the exported model must give finite outputs of shape {wanted.shape}, got {outputs.shape}: choose another "
            f"{option('precision')} or {option('format')}"
        )
    differences = np.abs(outputs - wanted).max(axis=1)
    worst = int(differences.argmax())
    given, right = (_labels(head, each) for each in (outputs, wanted))
    differ = (given != right) & (_margins(head, wanted) > TOLERANCE)
    comparison = Comparison(
        rows=len(wanted),
        held_out=expected.held_out,
        largest_difference=float(differences[worst]),
        worst_id=expected.ids[worst],
        different_labels=int(differ.sum()),
    )
    return _with_accuracy(comparison, head, expected, given, right, exact=exact)


def _labels(head: Head, outputs: Floats) -> npt.NDArray[Any]:
    """Return predicted classes as numbers, sets of labels as text, and zeros for numbers."""
    if head.task == "regression":
        return np.zeros(len(outputs))
    if head.task == "multilabel":
        least = 0.5 if output_kind(head) == "probabilities" else 0.0
        return np.array(["".join("01"[value] for value in row) for row in (outputs > least).tolist()])
    return (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


def _margins(head: Head, outputs: Floats) -> Floats:
    """Return by how much the best output is better than the next, or how far the nearest label is from its limit."""
    if head.task == "multilabel":
        least = 0.5 if output_kind(head) == "probabilities" else 0.0
        margins: Floats = np.abs(outputs - least).min(axis=1)
    elif head.task == "regression" or outputs.shape[1] == 1:
        margins = np.abs(outputs[:, 0])
    else:
        best = np.sort(outputs, axis=1)
        margins = best[:, -1] - best[:, -2]
    return margins


def _with_accuracy(
    comparison: Comparison,
    head: Head,
    expected: Expected,
    given: npt.NDArray[Any],
    right: npt.NDArray[Any],
    *,
    exact: bool,
) -> Comparison:
    """Return the comparison with both accuracies and the bound of their difference, where labels are known."""
    if head.task != "classification" or head.classes is None:
        return comparison
    places = {str(name): place for place, name in enumerate(head.classes.tolist())}
    truth = np.array([-1 if label is None else places.get(str(label), -2) for label in expected.labels])
    known = truth != -1
    if not known.any():
        return comparison
    exported, of_head = (given == truth)[known], (right == truth)[known]
    both, neither = int((exported & of_head).sum()), int((~exported & ~of_head).sum())
    _, high = paired_interval(both, int((exported & ~of_head).sum()), int((of_head & ~exported).sum()), neither)
    return Comparison(
        **{
            **vars(comparison),
            "labelled": int(known.sum()),
            "accuracy": float(exported.mean()),
            "accuracy_of_head": float(of_head.mean()),
            "loss_bound": None if exact else max(0.0, float(high)),
        }
    )


def require_equal(comparison: Comparison, outputs: Floats, kind: str) -> None:
    """Raise HeadError, naming the worst item, unless the model gives what the head gives."""
    scale = 1.0 if kind == "probabilities" else max(1.0, float(np.abs(outputs).max()))
    if comparison.different_labels or comparison.largest_difference > TOLERANCE * scale:
        raise HeadError(
            f"the exported model must give what the head gives, and does not: {comparison.words}; the worst "
            f"item is {comparison.worst_id!r}. Nothing was written. Update onnxruntime and torch, or use another "
            f"backbone"
        )


def require_enough_rows(head: Head, rows: Rows) -> None:
    """Raise HeadError if int8 would be refused though no label differed, as there are too few rows with labels."""
    count = sum(label is not None for label in rows.labels)
    if not count or head.task != "classification":
        raise _unmeasured("int8")
    wrong = count // 2  # the interval is widest where both models are always right
    if paired_interval(count - wrong, 0, 0, wrong)[1] >= LARGEST_LOSS:
        raise HeadError(
            f"{option('precision', 'int8')} is measured on rows with labels, and {counted(count, 'row')} cannot "
            f"show that less than {100 * LARGEST_LOSS:g} point of accuracy is lost, which takes some 400: label more, "
            f"or export {option('precision', 'float16')}"
        )


def require_near(comparison: Comparison, outputs: Floats, precision: str) -> None:
    """Raise HeadError if a number moves by a large part of the spread of the head's numbers (n, 1)."""
    spread = float(outputs.std()) or float(np.abs(outputs).max())
    if comparison.largest_difference > LARGEST_MOVE * spread:
        raise HeadError(
            f"{option('precision', precision)} may move a number by at most {100 * LARGEST_MOVE:g} % of the spread of "
            f"the head's numbers, which is {spread:.3g}, and moves that of {comparison.worst_id!r} by "
            f"{comparison.largest_difference:.3g}: export {option('precision', 'float32')}"
        )


def is_accurate(comparison: Comparison, precision: str) -> bool:
    """Return whether less than a point of accuracy is lost, by the bound of its interval; all labels of float16 equal.

    Rounding to 11 bits moves a probability far less than int8 does, so that few rows are enough for float16.
    """
    if precision == "float16" and not comparison.different_labels:
        return True
    return comparison.loss_bound is not None and comparison.loss_bound < LARGEST_LOSS


def require_accurate(comparison: Comparison, precision: str) -> None:
    """Raise HeadError unless the accuracy that a precision costs is below a point, by the bound of its interval."""
    if is_accurate(comparison, precision):
        return
    if comparison.loss_bound is None:
        raise _unmeasured(precision)
    raise HeadError(
        f"{option('precision', precision)} may lose {100 * comparison.loss_bound:.2f} points of accuracy, and at "
        f"most {100 * LARGEST_LOSS:g} is allowed: {comparison.words}. Use float32, or more held-out rows"
    )


def _unmeasured(precision: str) -> HeadError:
    return HeadError(
        f"{option('precision', precision)} needs held-out rows with labels of classes, on which its accuracy is "
        f"measured, and the store has no such rows: export {option('precision', 'float32')}"
    )
