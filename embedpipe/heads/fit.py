"""`fit`: from a store to a head, measured on rows it was not fitted on."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
from sklearn.utils.class_weight import compute_sample_weight

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.errors import TrainingDataError
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.preprocessing.component_remover import last_step
from embedpipe.estimators.solvers.torch_matrix import set_device, usable_device
from embedpipe.estimators.wrappers.base import WrappedEstimator, fit_on, innermost_estimator
from embedpipe.heads.head import Head
from embedpipe.heads.options import FitOptions
from embedpipe.heads.registry import AUTO, make_auto, make_estimator
from embedpipe.heads.saving import check_target
from embedpipe.heads.scoring import FitReport, measure
from embedpipe.heads.training_data import TrainingData, read_training_data
from embedpipe.heads.wrapping import wrap_estimator
from embedpipe.splits.inner import take_rows
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import FitParameters


@takes_options(FitOptions)
def fit(
    store: FeatureStore | str | Path,
    head: Any = None,
    *,
    to: str | Path | None = None,
    progress: bool | None = None,
    **options: Unpack[FitParameters],
) -> Head:
    """Fit a head on a store's vectors and labels, and measure it on rows it has not seen.

    Where the store's ``split`` column has ``train`` and ``test``, the head is fitted on ``train`` and
    ``validation``, chooses its penalty on ``validation``, and is measured on ``test``; elsewhere it is measured by
    cross-validation and then fitted on everything. Whatever a head chooses, it chooses inside its training rows.

    Parameters
    ----------
    store : FeatureStore or path
    head : str or scikit-learn estimator, optional
        ``logreg`` (the default for classes), ``ridge`` (the default for numbers), ``lda``,
        ``centroid``, ``knn``, or any estimator, a pipeline too. One with a parameter ``cv`` that is None gets the
        validation split for it. ``auto`` picks the layer, the normalisation and the head by itself, inside the training
        rows of each split, and calibrates it; of all layers where no ``layer`` is named.
    to : str or path-like, optional
        A folder to save the head in.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    **options
        Fields of `FitOptions`: ``label="species"``, ``folds=10``...

    Returns
    -------
    Head
        With the figures in ``report``.

    Raises
    ------
    TrainingDataError
        If the labels or vectors cannot be learned from.
    UsageError
        If an argument is wrong.

    Examples
    --------
    >>> head = embedpipe.fit("photos.features", "logreg", to="photos.head")  # doctest: +SKIP
    >>> head.predict("new_photos")["label"]  # doctest: +SKIP
    """
    (chosen,) = build_options((FitOptions,), options)
    if to is not None:
        check_target(to)
    if chosen.gpu:
        usable_device(chosen.gpu)
    start = time.perf_counter()
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    automatic = isinstance(head, str) and head == AUTO
    if automatic and chosen.layer is None:
        chosen = replace(chosen, layer="+".join(store.layers))
    layers = {layer.name: layer.dim for layer in store.select_layers(chosen.layer)}
    data = read_training_data(store, chosen)
    smallest = min([len(data.fit_rows), *(len(train) for train, _ in data.splits)])
    if chosen.calibrate or chosen.interval_coverage or chosen.reject_share:  # which fit on folds inside these rows, too
        smallest = min([smallest * 2 // 3, *(len(train) for train, _ in data.tune_splits or ())])
    if automatic:
        name, estimator = AUTO, make_auto(data.task, layers, chosen)
    else:
        name, estimator = make_estimator(head, data.task, max(1, smallest), chosen.remove_components)
    estimator = wrap_estimator(name, estimator, data.task, chosen, data.labels)
    report = FitReport(
        data.task,
        data.measured_on,
        len(data.fit_rows),
        n_folds=len(data.splits) if data.measured_on == "folds" else 0,
        split_ignored=data.split_ignored,
        left_out=data.left_out,
    )
    fit_rows = partial(_fit, data=data, balanced=chosen.class_weight is not None)
    show = Progress(progress)
    # With a split, the head that is measured is the head.
    once = len(data.splits) == 1 and np.array_equal(data.splits[0][0], data.fit_rows)
    with show.step(f"fitting {name}", len(data.splits) + (not once), "fits") as advance, warnings.catch_warnings():
        # Classes with few rows each are told from the figures.
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        try:
            fitted = measure(estimator, data.X, data.y, data.splits, report, fit_rows, advance)
            if not once:
                fitted = fit_rows(estimator, data.fit_rows)
                advance()
        except Exception as error:  # of any estimator
            raise TrainingDataError(
                f"{type(innermost_estimator(estimator)).__name__} cannot learn from these rows: {error}"
            ) from error
    report.chosen = chosen_by(fitted)
    names = list(layers)
    if isinstance(fitted, AutoClassifier | AutoRegressor):
        # What was picked stands alone: on its own layers.
        report.trials = fitted.trials_
        names, fitted = fitted.layer_.split("+"), fitted.estimator_
    if data.labels is not None:
        report.classes = data.labels
    if chosen.remove_components:
        report.chosen["remove_components"] = chosen.remove_components
    if chosen.gpu:
        report.chosen["device"] = chosen.gpu
        set_device(fitted, None)  # a head is used, and fitted again, where there may be no such device
    report.seconds = time.perf_counter() - start
    made = Head(
        name=name,
        estimator=fitted,
        spec=store.spec.only(*names),
        label=chosen.label,
        store=store.path,
        store_id=store.table_id,
        store_version=store.version,
        report=report,
        label_separator=chosen.label_separator,
    )
    if to is not None:
        made.save(to)
    return made


def _fit(estimator: Any, rows: npt.NDArray[np.int64], data: TrainingData, balanced: bool) -> Any:
    """Fit on some rows, with the penalty chosen where there are rows for that and the estimator chooses one."""
    X, y = take_rows(data.X, rows), data.y[rows]
    weights = None if data.weights is None else data.weights[rows]
    if balanced and data.task == "classification":  # of labels, each has its own
        by_class = compute_sample_weight("balanced", y)
        weights = by_class if weights is None else weights * by_class
    with one_blas_thread(X.nbytes < SMALL):
        return fit_on(estimator, X, y, weights, data.tune_splits)


def chosen_by(fitted: Any) -> dict[str, Any]:
    """Return what a head, and what is around it, chose by itself."""
    chosen: dict[str, Any] = {}
    level = fitted
    while level is not None:
        step = last_step(level)
        level = getattr(step, "estimator_", None) if isinstance(step, WrappedEstimator) else None
        if isinstance(step, AutoClassifier | AutoRegressor):
            level = step.estimator_
        names = ("layer_", "normalisation_", "head_", "C_", "alpha_", "temperature_", "threshold_")
        chosen |= {name[:-1]: getattr(step, name) for name in names if hasattr(step, name)}
        if level is None and hasattr(step, "n_neighbors"):
            chosen["n_neighbors"] = step.n_neighbors
    return chosen
