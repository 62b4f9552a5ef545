"""The linear probe: the head that becomes the last layer of the network before fine-tuning."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe._utils.option_names import option
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.wrappers.base import clone_with_chosen_params, fit_on
from embedpipe.finetuning.split_rows import Rows, SplitRows, network_layer
from embedpipe.heads import Head, load_head
from embedpipe.heads.columns.table_columns import refuse_columns
from embedpipe.heads.conversion.linear_head import LinearHead, fold_estimator
from embedpipe.heads.options import FitOptions
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.scoring import FitReport
from embedpipe.heads.training.vectors import read_finite
from embedpipe.heads.training.wrapping import wrap_estimator
from embedpipe.store import FeatureStore


def fold_head(head: Head) -> LinearHead:
    """Fold a classification head into one affine map, see `fold_estimator`.

    Raises
    ------
    UsageError
        If the head is not a classifier, or is not an affine map.
    """
    if head.task != "classification":
        raise UsageError(
            f"only a classifier can become the last layer of a network: head {head.name!r} is for {head.task}. Fit one "
            f"with {option('task', 'classification')}"
        )
    return fold_estimator(head.estimator, head.name)


def fit_calibrated_logreg(X: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> Any:
    """Fit the estimator of ``fit(store, "logreg", calibrate=True)``: penalty and temperature are chosen on these rows.

    Raises TrainingDataError if there are too few rows.
    """
    name, estimator = make_estimator("logreg", "classification", len(X))
    estimator = wrap_estimator(name, estimator, "classification", FitOptions(calibrate=True), None)
    with one_blas_thread(X.nbytes < SMALL), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        try:
            return fit_on(estimator, X, y)
        except ValueError as error:
            raise TrainingDataError(f"cannot fit a linear probe on {len(X)} labels: {error}") from error


def fit_default_probe(store: FeatureStore, label: str, split: SplitRows) -> Head:
    """Fit a calibrated logistic regression on the training and validation rows."""
    layer = network_layer(store)
    rows = np.sort(np.concatenate([split.train, split.validation]))
    X = read_finite(store, [layer], split.ids)[rows]
    report = FitReport("classification", "none", len(rows))
    estimator = fit_calibrated_logreg(X, split.classes[split.y[rows]])
    spec = store.spec.only(layer.name)
    return Head("logreg", estimator, spec, label, store.path, store.table_id, store.version, report)


def open_probe(head: Head | str | Path, store: FeatureStore) -> Head:
    """Load a head of vectors alone. Raises SpecMismatchError if they are of another backbone than the store's."""
    probe = head if isinstance(head, Head) else load_head(head)
    refuse_columns(probe.columns, "fine-tuning trains a network")
    spec = store.spec.only(*probe.layers)
    probe.spec.require(
        spec,
        f"the head must have the backbone of {store.path!r}",
        "in the head",
        "in the store",
        "Give the store that the head was fitted on, or fit a head on this store.",
    )
    return probe


def refit_probe(probe: Head, X: npt.NDArray[np.float32], split: SplitRows, rows: Rows) -> LinearHead:
    """Fit the estimator of a head on these rows, with the penalty and temperature it has chosen before."""
    estimator = fit_on(clone_with_chosen_params(probe.estimator), X[rows], split.classes[split.y[rows]])
    return align_classes(fold_estimator(estimator, probe.name), split.classes)


def fit_on_vectors(probe: Head, vectors: npt.NDArray[np.float32], split: SplitRows, rows: Rows) -> LinearHead:
    """Fit the estimator of a head on other vectors of these rows, which choose its penalty and temperature anew."""
    estimator = fit_on(clone(probe.estimator), vectors, split.classes[split.y[rows]])
    return align_classes(fold_estimator(estimator, probe.name), split.classes)


def align_classes(linear: LinearHead, classes: npt.NDArray[Any]) -> LinearHead:
    """Return the head with these classes in this order. Raises UsageError if it lacks one of them."""
    positions = {name: position for position, name in enumerate(linear.classes.tolist())}
    if missing := [name for name in classes.tolist() if name not in positions]:
        names = ", ".join(repr(name) for name in missing[:5])
        raise UsageError(
            f"the head must have all classes of the training rows, and lacks {names}: fit it on the current labels"
        )
    order = [positions[name] for name in classes.tolist()]
    return dataclasses.replace(linear, weight=linear.weight[order], bias=linear.bias[order], classes=classes)
