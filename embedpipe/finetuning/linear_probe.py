"""The linear head that a network begins with."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.wrappers.base import clone_with_chosen_params, fit_on
from embedpipe.finetuning.split_rows import Rows, SplitRows, network_layer
from embedpipe.finetuning.training.linear_head import LinearHead, linear_of
from embedpipe.heads import Head, load_head
from embedpipe.heads.options import FitOptions
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.scoring import FitReport
from embedpipe.heads.training_data import read_finite
from embedpipe.heads.wrapping import wrap_estimator
from embedpipe.store import FeatureStore


def calibrated_logreg(X: npt.NDArray[np.float32], y: npt.NDArray[Any]) -> Any:
    """Fit what ``fit(store, "logreg", calibrate=True)`` fits, its penalty and temperature chosen inside these rows.

    Raises TrainingDataError if they are too few.
    """
    name, estimator = make_estimator("logreg", "classification", len(X))
    estimator = wrap_estimator(name, estimator, "classification", FitOptions(calibrate=True), None)
    with one_blas_thread(X.nbytes < SMALL), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        try:
            return fit_on(estimator, X, y)
        except ValueError as error:
            raise TrainingDataError(f"no probe can be fitted on {len(X)} labels: {error}") from error


def usual_probe(store: FeatureStore, label: str, split: SplitRows) -> Head:
    """Return a calibrated logistic regression on all but the test rows, which choose nothing either."""
    layer = network_layer(store)
    rows = np.sort(np.concatenate([split.train, split.validation]))
    X = read_finite(store, [layer], split.ids)[rows]
    report = FitReport("classification", "none", len(rows))
    estimator = calibrated_logreg(X, split.classes[split.y[rows]])
    return Head(
        "logreg", estimator, store.spec.only(layer.name), label, store.path, store.table_id, store.version, report
    )


def open_probe(head: Head | str | Path, store: FeatureStore) -> Head:
    """Return a head of this store.

    Raises
    ------
    SpecMismatchError
        If it is of another backbone.
    """
    probe = head if isinstance(head, Head) else load_head(head)
    mine = store.spec.only(*probe.layers)
    probe.spec.require(
        mine,
        f"the head is of another backbone than {store.path!r}",
        "in the head",
        "in the store",
        "Give the store that the head was fitted on, or fit one on this store.",
    )
    return probe


def fitted_anew(head: Head, X: npt.NDArray[np.float32], split: SplitRows, rows: Rows) -> LinearHead:
    """Return the head fitted on just these rows, with the choices that it made before."""
    estimator = fit_on(clone_with_chosen_params(head.estimator), X[rows], split.classes[split.y[rows]])
    return aligned(linear_of(dataclasses.replace(head, estimator=estimator)), split.classes)


def aligned(linear: LinearHead, classes: npt.NDArray[Any]) -> LinearHead:
    """Return the head with these classes in this order. Raises UsageError if it does not know one of them."""
    if missing := [one for one in classes.tolist() if one not in set(linear.classes.tolist())]:
        named = ", ".join(repr(one) for one in missing[:5])
        raise UsageError(f"the head does not know {named}: fit it on this store's labels as they are now")
    place = {one: at for at, one in enumerate(linear.classes.tolist())}
    order = [place[one] for one in classes.tolist()]
    return dataclasses.replace(linear, weight=linear.weight[order], bias=linear.bias[order], classes=classes)
