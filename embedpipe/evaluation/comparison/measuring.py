"""Fit one candidate on the training rows of a resample, and predict its test rows."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed
from sklearn.base import clone, is_classifier

from embedpipe._utils.blas_threads import SMALL, one_blas_thread, with_jobs
from embedpipe._utils.cache import open_cache
from embedpipe._utils.config import usable_cores
from embedpipe._utils.machine.memory import memory_left, parse_size
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Advance
from embedpipe.errors import UsageError
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
from embedpipe.heads.fit import chosen_params
from embedpipe.report.drawing.wording import size
from embedpipe.splits.inner import take_rows
from embedpipe.splits.mapped_rows import MappedRows
from embedpipe.splits.splits import Resample, Splits


def measure_all(
    estimator: Any,
    X: npt.NDArray[np.float32] | MappedRows,
    key: str,
    y: npt.NDArray[Any],
    resamples: Sequence[Resample],
    n_classes: int,
    table_id: str,
    advance: Advance,
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
    first = resamples[0].seed

    def measure(resample: Resample) -> ResampleResult:
        calibrate = n_classes > 0 and resample.seed == first and not isinstance(estimator, AutoClassifier)
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
