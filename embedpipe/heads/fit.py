"""`fit`: from a store to a head, measured on rows that it was not fitted on."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
from sklearn.utils.class_weight import compute_sample_weight

from embedpipe._utils.blas_threads import SMALL, one_blas_thread
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.preprocessing.component_remover import last_step
from embedpipe.estimators.solvers.torch_matrix import set_device, usable_device
from embedpipe.estimators.wrappers.base import WrappedEstimator, fit_on, innermost_estimator
from embedpipe.heads.columns.table_columns import TableColumn
from embedpipe.heads.columns.vectoriser import with_columns
from embedpipe.heads.head import Head
from embedpipe.heads.held_out import HeldOut
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.registry import AUTO, make_auto, make_estimator
from embedpipe.heads.saving import check_target
from embedpipe.heads.scoring import FitReport, measure
from embedpipe.heads.training.training_data import TrainingData, read_training_data
from embedpipe.heads.training.vectors import fits_memory, refuse_on_disk, why_too_large
from embedpipe.heads.training.wrapping import wrap_estimator
from embedpipe.heads.zero_shot.naming import check_text_options, text_estimator, unlabelled_head
from embedpipe.heads.zero_shot.text_heads import is_text_head
from embedpipe.neighbours.duplicates import first_copies
from embedpipe.report.drawing.wording import size
from embedpipe.splits.inner import take_rows
from embedpipe.splits.leakage import contradiction_notes, leakage_notes
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.splits.stored_hashes import stored_hashes
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store

if TYPE_CHECKING:
    from embedpipe._utils.parameters import FitParameters


@takes_options(FitOptions, ReloadOptions)
def fit(
    store: FeatureStore | str | Path,
    head: Any = None,
    *,
    to: str | Path | None = None,
    progress: bool | None = None,
    **options: Unpack[FitParameters],
) -> Head:
    """Fit a head on the vectors and labels of a store, and measure it on rows that it was not fitted on.

    If the store's ``split`` column has ``train`` and ``test``, the head is fitted on ``train`` and ``validation``,
    chooses its penalty on ``validation``, and is measured on ``test``. Otherwise it is measured by cross-validation,
    and then fitted on all labelled rows. A head makes every choice inside its training rows.

    Parameters
    ----------
    store : FeatureStore or path
    head : str or scikit-learn estimator, optional
        ``logreg`` (the default for classes), ``ridge`` (the default for numbers), ``lda``, ``centroid``, ``knn``,
        ``knn-approx``, or any scikit-learn estimator or pipeline. An estimator whose parameter ``cv`` is None chooses
        on the validation split. ``auto`` chooses layer, normalisation and estimator by cross-validation inside the
        training rows, and calibrates the result; without ``layer`` it tries all layers. ``zero-shot`` needs no labels,
        only the names of the classes (``classes``) and a backbone that embeds texts; ``text-prior`` learns from labels,
        few or many, and starts from these names.
    to : str or path-like, optional
        A folder to save the head in.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Head
        With the metrics in ``report``, the predictions of the held-out rows in ``held_out``, and the wrong ones among
        them in ``mistakes()``.

    Raises
    ------
    TrainingDataError
        If labels or vectors are missing, or the estimator cannot learn from them.
    UsageError
        If an argument is wrong.

    See Also
    --------
    load_head : Read a head that was saved by ``to``.
    evaluate : Compare several heads and layers on the same splits.

    Examples
    --------
    >>> head = embedpipe.fit("photos.features", "logreg", to="photos.head")
    >>> head.report.metrics["accuracy"], head.report.baseline["accuracy"]
    ([1.0, 1.0, 1.0, 1.0, 1.0], [0.6, 0.6, 0.4, 0.4, 0.5])
    >>> head.predict("new_photos")["label"].to_pylist()
    ['cat', 'coffee']
    """
    fit_options, reload_options = build_options((FitOptions, ReloadOptions), options)
    check_text_options(head, fit_options)
    if to is not None:
        check_target(to)
    if fit_options.gpu:
        usable_device(fit_options.gpu)
    start = time.perf_counter()
    store = open_store(store)
    show = Progress(progress)
    show.say_all(random_notes([store.spec]))
    if isinstance(head, str) and head == AUTO:
        if fit_options.features:
            raise UsageError(
                f"auto chooses among layers, and {option('features')} belong to none: leave them out, or choose "
                f"another {option('head')}"
            )
        if fit_options.layer is None:
            fit_options = replace(fit_options, layer="+".join(store.layers))
    layers = {layer.name: layer.dim for layer in store.select_layers(fit_options.layer)}
    of_names: Any = None
    if is_text_head(head):
        of_names, has_labels = text_estimator(store, head, fit_options, reload_options, show)
        if not has_labels:
            return _finish(unlabelled_head(store, head, of_names, fit_options), to, show)

    chosen = _ChosenHead(head, of_names, layers, fit_options)
    with show.step("reading rows"):
        data = read_training_data(store, fit_options, chosen.must_stay_on_disk)
    if isinstance(data.X, MappedRows):
        show.say(f"{size(data.X.nbytes)} of vectors stay in a memory map on disk and are read block by block")
    name, estimator = chosen.estimator(data.task, max(1, _fewest_rows(data, fit_options)), data.labels, data.columns)
    with show.step("looking for near-duplicates"):
        report = _start_report(store, data, fit_options.label)
    fitted, held_out = _measure_and_fit(name, estimator, data, report, fit_options.class_weight is not None, show)
    report.chosen = chosen_params(fitted)
    names = list(layers)
    if isinstance(fitted, AutoClassifier | AutoRegressor):
        # The chosen estimator becomes the head, on its own layers.
        report.trials = fitted.trials_
        names, fitted = fitted.layer_.split("+"), fitted.estimator_
    if data.labels is not None:
        report.classes = data.labels
    if fit_options.remove_components:
        report.chosen["remove_components"] = fit_options.remove_components
    if fit_options.gpu:
        report.chosen["device"] = fit_options.gpu
        set_device(fitted, None)  # the head may be used, and fitted again, on a machine without this device
    report.seconds = time.perf_counter() - start
    result = Head(
        name=name,
        estimator=fitted,
        spec=store.spec.only(*names),
        label=fit_options.label,
        store=store.path,
        store_id=store.table_id,
        store_version=store.version,
        report=report,
        label_separator=fit_options.label_separator,
        columns=data.columns,
        held_out=held_out.table(data.ids, data.y, data.labels, fit_options.label_separator),
    )
    return _finish(result, to, show)


@dataclass(frozen=True)
class _ChosenHead:
    """The head that `fit` was given, on the layers of a store; its estimator depends on the rows."""

    head: Any
    of_names: Any  # the estimator of a head that starts from the names of the classes
    layers: dict[str, int]
    options: FitOptions

    def estimator(
        self, task: Task, rows: int, labels: list[str] | None = None, columns: tuple[TableColumn, ...] = ()
    ) -> tuple[str, Any]:
        """Return the name and the unfitted estimator with its wrappers, for so many rows at the fewest."""
        if isinstance(self.head, str) and self.head == AUTO:
            name, estimator = AUTO, make_auto(task, self.layers, self.options)
        else:
            given = self.head if self.of_names is None else self.of_names
            name, estimator = make_estimator(given, task, rows, self.options.remove_components)
            name = name if self.of_names is None else self.head
        if columns:
            name, estimator = with_columns(name, estimator, columns, sum(self.layers.values()))
        return name, wrap_estimator(name, estimator, task, self.options, labels)

    def must_stay_on_disk(self, task: Task, shape: tuple[int, int]) -> bool:
        """Return whether memory does not hold the vectors. Raises UsageError if the estimator cannot do without."""
        if fits_memory(*shape, self.options.memory, bool(self.options.features)):
            return False
        refuse_on_disk(self.options.features, shape)
        name, estimator = self.estimator(task, shape[0])
        if why := why_too_large(f"fit of {name}", estimator, shape, self.options.memory, task):
            raise UsageError(why)
        return True


def _start_report(store: FeatureStore, data: TrainingData, label: str) -> FitReport:
    """Return a report without metrics, with what is to be said about the rows."""
    report = FitReport(
        data.task,
        data.measured_on,
        len(data.fit_rows),
        n_folds=len(data.splits) if data.measured_on == "folds" else 0,
        split_ignored=data.split_ignored,
        left_out=data.left_out,
    )
    copies = first_copies(data.vectors)
    hashes = stored_hashes(store, data.ids)
    report.notes = [*data.notes, *leakage_notes(data.vectors, copies, data.splits, hashes)]
    if data.task != "regression":
        report.notes += contradiction_notes(copies, data.y, data.ids, label)
    return report


def _finish(head: Head, to: str | Path | None, show: Progress) -> Head:
    """Save a head if it is to be saved, and say what it is."""
    if to is not None:
        head.save(to)
    report = head.report
    show.event(
        "summary", head=head.name, label=head.label, rows=report.rows, metrics=report.metrics, notes=report.notes
    )
    return head


def _fewest_rows(data: TrainingData, options: FitOptions) -> int:
    """Return the number of rows of the smallest set that an estimator is fitted on."""
    fewest = min([len(data.fit_rows), *(len(train) for train, _ in data.splits)])
    if options.calibrate or options.interval_coverage or options.reject_share:  # these fit on folds inside the rows
        fewest = min([fewest * 2 // 3, *(len(train) for train, _ in data.tune_splits or ())])
    return fewest


def _measure_and_fit(
    name: str, estimator: Any, data: TrainingData, report: FitReport, balanced: bool, show: Progress
) -> tuple[Any, HeldOut]:
    """Measure the estimator on the splits; return it fitted on ``data.fit_rows``, and its held-out predictions."""
    fit_rows = partial(_fit, data=data, balanced=balanced)
    # With one split whose training rows are those of the final fit, the measured estimator is the result.
    once = len(data.splits) == 1 and np.array_equal(data.splits[0][0], data.fit_rows)
    with show.step(f"fitting {name}", len(data.splits) + (not once), "fits") as advance, warnings.catch_warnings():
        # The metrics show when classes have few rows each.
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        try:
            fitted, held_out = measure(estimator, data.X, data.y, data.splits, report, fit_rows, advance)
            if not once:
                fitted = fit_rows(estimator, data.fit_rows)
                advance()
        except (OSError, MemoryError):  # nothing that the rows could change
            raise
        except Exception as error:  # any estimator may raise anything
            raise TrainingDataError(
                f"{type(innermost_estimator(estimator)).__name__} cannot learn from these rows: {error}"
            ) from error
    return fitted, held_out


def _fit(estimator: Any, rows: npt.NDArray[np.int64], data: TrainingData, balanced: bool) -> Any:
    """Fit on some rows; an estimator that chooses its penalty does so on ``data.tune_splits``."""
    X, y = take_rows(data.X, rows), data.y[rows]
    weights = None if data.weights is None else data.weights[rows]
    if balanced and data.task == "classification":  # the multilabel wrapper balances each label by itself
        by_class = compute_sample_weight("balanced", y)
        weights = by_class if weights is None else weights * by_class
    with one_blas_thread(X.nbytes < SMALL):
        return fit_on(estimator, X, y, weights, data.tune_splits)


def chosen_params(fitted: Any) -> dict[str, Any]:
    """Return the parameters that a fitted estimator and its wrappers chose, such as ``C``, as JSON has them."""
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
    return {name: _plain(value) for name, value in chosen.items()}


def _plain(value: Any) -> Any:
    """Return a number or string of Python; an array of several values, such as one C for each class, as a string."""
    values = np.ravel(value).tolist()
    return values[0] if len(values) == 1 else ", ".join(map(str, values))
