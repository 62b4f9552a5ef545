"""`fit`: from a store to a head, measured on rows it was not fitted on."""

from __future__ import annotations

import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.config import build_options
from embedpipe.errors import TrainingDataError
from embedpipe.heads.artefact import check_target, save_head
from embedpipe.heads.common_components import last_step
from embedpipe.heads.folds import Split, take_rows
from embedpipe.heads.head import Head
from embedpipe.heads.options import FitOptions
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.scoring import FitReport, measure
from embedpipe.heads.threads import SMALL, one_blas_thread
from embedpipe.heads.training import read_training_data
from embedpipe.progress import Progress
from embedpipe.store import FeatureStore


def fit(
    store: FeatureStore | str | Path,
    head: Any = None,
    *,
    to: str | Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Head:
    """Fit a head on a store's vectors and labels, and measure it on rows it has not seen.

    Where the store's ``split`` column has ``train`` and ``test``, the head is fitted on ``train`` and
    ``validation``, chooses its penalty on ``validation``, and is measured on ``test``; elsewhere it is measured by
    cross-validation and then fitted on everything. Whatever a head chooses, it chooses inside its training rows.

    Parameters
    ----------
    store : FeatureStore or path
    head : str or scikit-learn estimator, optional
        ``logreg`` (the default for classes), ``ridge`` (the default for numbers), ``linear-svc``, ``lda``,
        ``centroid``, ``knn``, or any estimator, a pipeline too. One with a parameter ``cv`` that is None gets the
        validation split for it.
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
    start = time.perf_counter()
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    data = read_training_data(store, chosen)
    smallest = min([len(data.fitted_on), *(len(train) for train, _ in data.measured_on)])
    name, estimator = make_estimator(head, data.task, smallest, chosen.remove_components)
    report = FitReport(data.task, data.protocol, len(data.fitted_on), left_out=data.left_out)
    tune = partial(_fit, tuned_on=data.tuned_on)
    show = Progress(progress)
    # With a split, the head that is measured is the head.
    once = len(data.measured_on) == 1 and np.array_equal(data.measured_on[0][0], data.fitted_on)
    with show.step(f"fitting {name}", len(data.measured_on) + (not once), "fits") as advance, warnings.catch_warnings():
        # Classes with few rows each are told from the figures.
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        try:
            fitted = measure(estimator, data.X, data.y, data.measured_on, report, tune, advance)
            if not once:
                fitted = tune(estimator, take_rows(data.X, data.fitted_on), data.y[data.fitted_on])
                advance()
        except Exception as error:  # of any estimator
            raise TrainingDataError(
                f"{type(last_step(estimator)).__name__} cannot learn from these rows: {error}"
            ) from error
    last = last_step(fitted)
    report.chosen = {key[:-1]: getattr(last, key) for key in ("C_", "alpha_") if hasattr(last, key)}
    if hasattr(last, "n_neighbors"):
        report.chosen["n_neighbors"] = last.n_neighbors
    if chosen.remove_components:
        report.chosen["remove_components"] = chosen.remove_components
    report.seconds = time.perf_counter() - start
    column = store.embedding_column(chosen.column)
    made = Head(
        name=name,
        estimator=fitted,
        spec=store.spec.only(column),
        label=chosen.label,
        store=store.path,
        store_id=store.table_id,
        store_version=store.version,
        report=report,
    )
    if to is not None:
        save_head(made, to)
    return made


def _fit(estimator: Any, X: npt.NDArray[Any], y: npt.NDArray[Any], tuned_on: list[Split] | None) -> Any:
    """Fit, with the penalty chosen on the given rows where there are such and the estimator chooses one."""
    last = last_step(estimator)
    own_choice = tuned_on is not None and last.get_params(deep=False).get("cv", "") is None
    if own_choice:
        last.set_params(cv=tuned_on)
    with one_blas_thread(X.nbytes < SMALL):
        estimator.fit(X, y)
    if own_choice:
        last.set_params(cv=None)
    return estimator
