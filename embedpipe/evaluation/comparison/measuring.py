"""One candidate on one resample: fitted on its training rows, and what it says of the others."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from joblib import Memory, Parallel, delayed
from sklearn.base import clone, is_classifier

from embedpipe import heads
from embedpipe._utils.blas_threads import SMALL, one_blas_thread, with_jobs
from embedpipe._utils.config import cache_folder, usable_cores
from embedpipe._utils.progress import Advance
from embedpipe._utils.public import source_module
from embedpipe.errors import UsageError
from embedpipe.estimators.auto import AutoClassifier
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.estimators.wrappers.calibration import calibrate_fitted
from embedpipe.heads.fit import chosen_by
from embedpipe.splits.inner import take_rows
from embedpipe.splits.make import Resample

#: Bytes that results of earlier evaluations may take in the cache folder.
CACHE = 1 << 30


@dataclass(frozen=True)
class Measured:
    """What a candidate made of a resample's test rows.

    Attributes
    ----------
    predicted : array (n_test,)
        Positions in the classes (int64), or numbers (float64).
    probabilities : float64 array (n_test, n_classes), optional
    scores : float64 array (n_test, n_classes), optional
        What orders the classes where there are no probabilities.
    calibrated : float64 array (n_test, n_classes), optional
        Probabilities after temperature scaling inside the training rows.
    chosen : dict
        What the head chose by itself.
    fit_seconds, predict_seconds : float
        The latter of 1,000 rows.
    size_bytes : int
    """

    predicted: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64] | None = None
    scores: npt.NDArray[np.float64] | None = None
    calibrated: npt.NDArray[np.float64] | None = None
    chosen: dict[str, Any] = field(default_factory=dict)
    fit_seconds: float = 0.0
    predict_seconds: float = 0.0
    size_bytes: int = 0


def measure_all(
    estimator: Any,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    resamples: Sequence[Resample],
    n_classes: int,
    key: str,
    advance: Advance,
) -> list[Measured]:
    """Fit and measure an estimator on every resample, beside each other while copies of the rows are small.

    What was measured before is taken from the cache folder. Raises UsageError for an estimator that cannot be pickled.

    Parameters
    ----------
    X : float32 array (n_samples, dim)
    y : array (n_samples,)
        Positions in the classes, or numbers.
    n_classes : int
        0 for numbers.
    key : str
        Tells these vectors from all others.
    """
    memory = Memory(cache_folder() / "evaluations", verbose=0)
    cached = memory.cache(_measure, ignore=["estimator", "X", "y", "resample"])
    try:
        head = joblib.hash(estimator) + _code(estimator)
    except pickle.PicklingError as error:
        raise UsageError(
            f"{type(estimator).__name__} cannot be pickled, as heads are kept: name functions in it instead of using "
            f"lambda, or those defined inside others ({error.args[0]})"
        ) from error
    cores = usable_cores() if X.nbytes < SMALL else 1
    first = resamples[0].seed

    def one(resample: Resample) -> Measured:
        own = _digest(key, head, y, resample)
        calibrate = n_classes > 0 and resample.seed == first and not isinstance(estimator, AutoClassifier)
        ready = with_jobs(clone(estimator), 1 if cores > 1 else None)
        found: Measured = cached(own, calibrate, ready, X, y, resample, n_classes)
        advance()
        return found

    with one_blas_thread(cores > 1):
        results: list[Measured] = Parallel(cores, prefer="threads")(delayed(one)(resample) for resample in resamples)
    memory.reduce_size(bytes_limit=CACHE)
    return results


def _code(estimator: Any) -> str:
    """Return a hash of the code of our heads, and of the files that a user's classes are in."""
    parts = [estimator, *estimator.get_params(deep=True).values()]
    names = {source_module(type(part)) for part in parts if hasattr(part, "get_params")}
    files = [inspect.getsourcefile(sys.modules[name]) for name in names if name.split(".")[0] != "sklearn"]
    digest = hashlib.sha256()
    for file in sorted({*filter(None, files), *map(str, Path(heads.__file__).parent.glob("*.py"))}):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _digest(key: str, head: str, y: npt.NDArray[Any], resample: Resample) -> str:
    """Return what decides a result: vectors, head, labels, rows, versions of what computes."""
    versions = [version(name) for name in ("scikit-learn", "numpy")]
    digest = hashlib.sha256(repr((key, head, versions)).encode())
    tune = [part for split in resample.tune or () for part in split]
    for part in (resample.train, resample.test, y[resample.train], y[resample.test], *tune):
        digest.update(repr(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _measure(
    key: str,
    calibrate: bool,
    estimator: Any,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    resample: Resample,
    n_classes: int,
) -> Measured:
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
        probabilities = _spread(estimator, "predict_proba", test, n_classes)
        if probabilities is None:
            scores = _spread(estimator, "decision_function", test, n_classes)
        if calibrate and (probabilities is not None or scores is not None):
            with contextlib.suppress(ValueError):  # too few rows of each class to calibrate on
                around = calibrate_fitted(estimator, train, labels, resample.tune)
                calibrated = _spread(around, "predict_proba", test, n_classes)
    return Measured(
        predicted,
        probabilities,
        scores,
        calibrated,
        chosen_by(estimator),
        fit_seconds,
        predict_seconds,
        len(pickle.dumps(estimator)),
    )


def _spread(estimator: Any, method: str, X: npt.NDArray[Any], n_classes: int) -> npt.NDArray[np.float64] | None:
    """Return probabilities or scores with a column for every class, also for those that were not trained on."""
    if not hasattr(estimator, method):
        return None
    found = np.asarray(getattr(estimator, method)(X), np.float64)
    if found.ndim == 1:
        found = np.stack([-found, found], axis=1)
    shares = method == "predict_proba"
    known = np.asarray(estimator.classes_)
    if found.shape != (len(X), len(known)) or not np.isin(known, np.arange(n_classes)).all():
        raise ValueError(f"{method} gives {found.shape} values for {len(X)} rows and classes {known.tolist()}")
    if not np.isfinite(found).all() or (shares and not ((found >= 0).all() and (found.sum(axis=1) > 0).all())):
        raise ValueError(f"{method} gives values that are not finite, or are no probabilities")
    full = np.full((len(X), n_classes), 0.0 if shares else -np.inf)
    full[:, known.astype(np.int64)] = found / found.sum(axis=1, keepdims=True) if shares else found
    return full


def _predicted(estimator: Any, X: npt.NDArray[Any], n_classes: int) -> npt.NDArray[Any]:
    """Return predictions as int64 or float64, (n,). Raises ValueError if they are not what was learned from."""
    said = np.asarray(estimator.predict(X))
    known = np.isin(said, np.arange(n_classes)).all() if n_classes else np.isfinite(said).all()
    if said.shape != (len(X),) or not known:
        raise ValueError(f"predict gives {said.shape} values for {len(X)} rows, or values that were not learned")
    return said.astype(np.int64 if n_classes else np.float64)
