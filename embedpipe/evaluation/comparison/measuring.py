"""Fit candidates on the training rows of each resample, and predict its test rows."""

from __future__ import annotations

import contextlib
import pickle
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn.base import clone, is_classifier

from embedpipe._utils.blas_threads import SMALL, one_blas_thread, with_jobs
from embedpipe._utils.cache import keep_limit, open_cache
from embedpipe._utils.checksums import checksum_of_pieces
from embedpipe._utils.config import usable_cores
from embedpipe._utils.machine.memory import memory_left, parse_size
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Advance, Progress
from embedpipe.errors import EmbedpipeError, UsageError
from embedpipe.estimators.auto import AutoClassifier
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.estimators.wrappers.calibration import calibrate_fitted
from embedpipe.evaluation.comparison.cached_results import (
    PART,
    ResampleResult,
    code_key,
    estimator_key,
    read_result,
    result_file,
    result_key,
    write_result,
)
from embedpipe.evaluation.comparison.candidates import HeadCandidate
from embedpipe.evaluation.comparison.class_details import distances_to_training_rows
from embedpipe.evaluation.comparison.rows import EvaluationRows
from embedpipe.heads.columns.table_columns import join_columns
from embedpipe.heads.fit import chosen_params
from embedpipe.heads.training.vectors import fits_memory, map_finite, read_finite, refuse_on_disk, why_too_large
from embedpipe.neighbours.exact import row_blocks
from embedpipe.report.drawing.wording import size
from embedpipe.splits.inner import take_rows
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.splits.splits import Resample, Splits


def measure_candidates(
    candidates: Sequence[HeadCandidate],
    rows: EvaluationRows,
    y: npt.NDArray[Any],
    n_classes: int,
    memory: str | None,
    progress: Progress,
    details: bool = True,
) -> tuple[list[list[ResampleResult]], dict[int, list[npt.NDArray[np.float64]]], dict[str, str]]:
    """Measure all candidates, layer by layer, so that only one matrix of vectors is in memory.

    Parameters
    ----------
    candidates : sequence of HeadCandidate
    rows : EvaluationRows
    y, n_classes : array (n_samples,), int
        As of `measure_all`.
    memory : str, optional
    progress : Progress
    details : bool
        Whether calibrated probabilities and distances are measured, too; calibrating takes as long as three more fits.

    Returns
    -------
    results : list of list of ResampleResult
        Of each candidate that did not fail, one for each resample.
    distances : dict
        ``id`` of a layer -> `distances_to_training_rows`; empty lists for regression, and for mapped rows.
    failed : dict
        Name of a candidate -> error.
    """
    results: dict[int, list[ResampleResult]] = {}
    failed: dict[str, str] = {}
    distances: dict[int, list[npt.NDArray[np.float64]]] = {}
    resamples = rows.splits.resamples
    by_layer: dict[tuple[str, tuple[str, ...]], list[HeadCandidate]] = {}
    for candidate in candidates:
        by_layer.setdefault((candidate.layer.store.path, candidate.layer.names), []).append(candidate)
    with progress.step("evaluating", len(candidates) * len(resamples), "fits") as advance:
        for group in by_layer.values():
            store = group[0].layer.store
            shape = len(rows.ids), group[0].layer.dim
            specs = group[0].layer.specs
            X: npt.NDArray[np.float32] | MappedRows
            if fits_memory(*shape, memory, bool(rows.columns)):
                X = read_finite(store, specs, rows.ids)
            else:
                refuse_on_disk(rows.columns, shape)
                reasons = {each.name: why_too_large("it", each.estimator, shape, memory, rows.task) for each in group}
                failed |= {name: why for name, why in reasons.items() if why}
                group = [each for each in group if not reasons[each.name]]
                if not group:
                    continue
                X = map_finite(store, specs, rows.ids, memory)
            # Not the store's version: copies of a store, and a repaired one, have other vectors in the same version.
            key = checksum_of_pieces(block for _, block in row_blocks(X))
            joined, joined_key = X, key
            if rows.columns:
                joined = join_columns(X[:], rows.values)
                joined_key = f"{key} {checksum_of_pieces([rows.values])}"
            with_distances = details and rows.task == "classification"
            layer_distances = distances_to_training_rows(X, rows) if with_distances else []
            for candidate in group:
                distances[id(candidate.layer)] = layer_distances
                with warnings.catch_warnings():
                    # scikit-learn takes few rows per class for a mistake in the labels.
                    warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
                    try:
                        data = (joined, joined_key) if candidate.has_columns else (X, key)
                        results[id(candidate)] = measure_all(
                            candidate.estimator, *data, y, resamples, n_classes, store.table_id, advance, details
                        )
                    except (EmbedpipeError, OSError, MemoryError):  # nothing that the rows could change
                        raise
                    except Exception as error:  # an estimator may raise anything; the others are still measured
                        failed[candidate.name] = f"{type(error).__name__}: {error}"
    keep_limit()
    return [results[id(candidate)] for candidate in candidates if id(candidate) in results], distances, failed


def measure_all(
    estimator: Any,
    X: npt.NDArray[np.float32] | MappedRows,
    key: str,
    y: npt.NDArray[Any],
    resamples: Sequence[Resample],
    n_classes: int,
    table_id: str,
    advance: Advance,
    calibrated: bool = True,
) -> list[ResampleResult]:
    """Fit and measure an estimator on every resample, in parallel threads if copies of the rows are small.

    Earlier results of the same key are read from the cache folder.

    Parameters
    ----------
    X : float32 array (n_samples, dim), or MappedRows
    key : str
        Identifies the vectors.
    y : array (n_samples,)
        Positions in the classes, or numbers.
    n_classes : int
        0 for regression.
    table_id : str
        Of the store that holds the vectors.
    calibrated : bool
        Whether to measure calibrated probabilities of the first repeat of a classifier, too.

    Raises
    ------
    UsageError
        If the estimator cannot be pickled.
    """
    folder = open_cache(PART)
    try:
        keys = (key, estimator_key(estimator), code_key())
    except pickle.PicklingError as error:
        raise UsageError(
            f"{option('heads')} must be picklable, and {type(estimator).__name__} is not: replace lambdas and local "
            "functions by "
            f"functions of a module ({error.args[0]})"
        ) from error
    cores = usable_cores() if X.nbytes < SMALL else 1
    first, calibrates = resamples[0].seed, calibrated and n_classes > 0 and not isinstance(estimator, AutoClassifier)

    def measure(resample: Resample) -> ResampleResult:
        calibrate = calibrates and resample.seed == first
        unfitted = with_jobs(clone(estimator), 1 if cores > 1 else None)
        result = file = None
        if folder is not None:
            file = result_file(folder, table_id, result_key((*keys, str((n_classes, calibrate))), y, resample))
            result = read_result(file, len(resample.test), n_classes)
        if result is None:
            result = _measure(calibrate, unfitted, X, y, resample, n_classes)
            if file is not None:
                write_result(file, result)
        advance()
        return result

    with one_blas_thread(cores > 1):
        results: list[ResampleResult] = Parallel(cores, prefer="threads")(
            delayed(measure)(resample) for resample in resamples
        )
    return results


def require_room(candidates: int, splits: Splits, n_classes: int, memory: str | None) -> None:
    """Raise UsageError if the predictions of all candidates for all test rows do not fit into memory."""
    tested = sum(len(resample.test) for resample in splits.resamples)
    # Classes, probabilities, calibrated ones, and a table of all.
    needed = candidates * tested * (40 + 20 * n_classes)
    if needed > memory_left(parse_size("memory", memory)):
        raise UsageError(
            f"predictions of {candidates} candidates for {tested:,} test rows need about {size(needed)} of memory: "
            f"compare fewer heads, or with {option('repeats', 1)}, or declare test rows in a column `split`"
        )


def _measure(
    calibrate: bool,
    estimator: Any,
    X: npt.NDArray[np.float32] | MappedRows,
    y: npt.NDArray[Any],
    resample: Resample,
    n_classes: int,
) -> ResampleResult:
    train, test = take_rows(X, resample.train), take_rows(X, resample.test)
    labels = y[resample.train]
    start = time.perf_counter()
    fit_on(estimator, train, labels, None, resample.tune)
    fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    predicted = _predicted(estimator, test, n_classes)
    predict_seconds = (time.perf_counter() - start) * 1000 / len(test)
    probabilities = scores = calibrated = None
    if is_classifier(estimator):
        probabilities = _class_columns(estimator, "predict_proba", test, n_classes)
        if probabilities is None:
            scores = _class_columns(estimator, "decision_function", test, n_classes)
        if calibrate and (probabilities is not None or scores is not None):
            with contextlib.suppress(ValueError):  # too few rows of each class for calibration
                wrapper = calibrate_fitted(estimator, train, labels, resample.tune)
                calibrated = _class_columns(wrapper, "predict_proba", test, n_classes)
    return ResampleResult(
        predicted,
        probabilities,
        scores,
        calibrated,
        chosen_params(estimator),
        fit_seconds,
        predict_seconds,
        len(pickle.dumps(estimator)),
    )


def _class_columns(
    estimator: Any, method: str, X: npt.NDArray[Any] | MappedRows, n_classes: int
) -> npt.NDArray[np.float64] | None:
    """Return probabilities or scores with a column for every class, also for classes without training rows.

    Returns None if the estimator does not have the method. Raises ValueError if the values have another shape, are not
    finite, or are not probabilities.
    """
    if not hasattr(estimator, method):
        return None
    values = np.asarray(getattr(estimator, method)(X), np.float64)
    if values.ndim == 1:
        values = np.stack([-values, values], axis=1)
    is_proba = method == "predict_proba"
    known = np.asarray(estimator.classes_)
    if values.shape != (len(X), len(known)) or not np.isin(known, np.arange(n_classes)).all():
        raise ValueError(f"{method} must return shape {(len(X), len(known))}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{method} must return finite values, got NaN or infinity")
    if is_proba and not ((values >= 0).all() and (values.sum(axis=1) > 0).all()):
        raise ValueError(f"{method} must return probabilities, got negative values or rows of zeros")
    columns = np.full((len(X), n_classes), 0.0 if is_proba else -np.inf)
    columns[:, known.astype(np.int64)] = values / values.sum(axis=1, keepdims=True) if is_proba else values
    return columns


def _predicted(estimator: Any, X: npt.NDArray[Any] | MappedRows, n_classes: int) -> npt.NDArray[Any]:
    """Return predictions as int64 or float64, (n,); raise ValueError for unknown classes and numbers that are NaN."""
    predicted = np.asarray(estimator.predict(X))
    if predicted.shape != (len(X),):
        raise ValueError(f"predict must return shape {(len(X),)}, got {predicted.shape}")
    if not (np.isin(predicted, np.arange(n_classes)).all() if n_classes else np.isfinite(predicted).all()):
        raise ValueError("predict must return classes of the training rows, or finite numbers")
    return predicted.astype(np.int64 if n_classes else np.float64)
