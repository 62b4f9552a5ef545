"""Results of a candidate on one resample, kept in the cache folder: arrays and JSON, which run no code when read.

A file is named after the store and a key, which is a hash of everything that the result depends on. It holds the
checksum of what follows, and a NumPy archive. A file that is damaged, or whose arrays have other shapes, is measured
again.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import sys
import uuid
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from embedpipe._utils.cache import cannot_cache, mark_used, name_of
from embedpipe._utils.checksums import read_checked, write_checked
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.version import __version__
from embedpipe.splits.splits import Resample

PACKAGE = Path(__file__).parents[2]
#: Code of embedpipe that decides a result: files or folders below the package.
CODE = ("estimators", "neighbours", "splits", "heads", "evaluation/comparison/measuring.py", "_utils/blas_threads.py")
#: Distributions that decide a result.
DISTRIBUTIONS = ("faiss-cpu", "numpy", "scikit-learn", "scipy", "torch")
#: The part of the cache folder that holds the results.
PART = "evaluations"
#: Arrays of a result, which are float64 of shape (n_test, n_classes) or missing.
OPTIONAL_ARRAYS = ("probabilities", "scores", "calibrated")


@dataclass(frozen=True)
class ResampleResult:
    """Predictions of a candidate for the test rows of one resample, and its costs.

    Attributes
    ----------
    predicted : array (n_test,)
        Positions in the classes (int64), or numbers (float64).
    probabilities : float64 array (n_test, n_classes), optional
    scores : float64 array (n_test, n_classes), optional
        Decision scores, for heads without probabilities.
    calibrated : float64 array (n_test, n_classes), optional
        Probabilities after temperature scaling inside the training rows.
    chosen : dict
        Hyperparameters that the head chose.
    fit_seconds, predict_seconds : float
        Of the fit, and of predicting 1,000 rows.
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


def result_file(folder: Path, table_id: str, key: str) -> Path:
    """Return the file of a result on the store with this table id."""
    return folder / f"{name_of(table_id)}-{key}"


def read_result(file: Path, n_test: int, n_classes: int) -> ResampleResult | None:
    """Return a result that `write_result` wrote; None if it is missing, damaged or of other shapes."""
    try:
        with np.load(io.BytesIO(read_checked(file)), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = parse_json(arrays.pop("about").tobytes())
        result = ResampleResult(**arrays, **about)
        if result.predicted.shape != (n_test,) or result.predicted.dtype != (np.int64 if n_classes else np.float64):
            return None
        for name in OPTIONAL_ARRAYS:
            values = getattr(result, name)
            if values is not None and (values.shape != (n_test, n_classes) or values.dtype != np.float64):
                return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        return None
    mark_used(file)
    return result


def write_result(file: Path, result: ResampleResult) -> None:
    """Write a result atomically. A disk that is full is no error."""
    fields = asdict(result)
    arrays = {name: fields.pop(name) for name in ("predicted", *OPTIONAL_ARRAYS)}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        about=np.frombuffer(json.dumps(fields).encode(), np.uint8),
        **{name: values for name, values in arrays.items() if values is not None},
    )
    try:
        write_checked(file, buffer.getvalue())
    except OSError as error:
        cannot_cache(error)


def estimator_key(estimator: Any) -> str:
    """Return a hash of an estimator, its parameters and the source files of the classes that it is made of.

    Raises
    ------
    pickle.PicklingError
        If the estimator cannot be pickled.
    """
    parts = [estimator, *estimator.get_params(deep=True).values()]
    classes = {type(part) for part in parts if hasattr(part, "get_params")}
    others = [cls for cls in classes if cls.__module__.split(".")[0] not in ("sklearn", "embedpipe")]
    digest = hashlib.sha256()
    for cls in sorted(others, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}"):
        digest.update(_source(cls))
    return str(joblib.hash(estimator)) + digest.hexdigest()


def code_key(parts: Iterable[str] = CODE) -> str:
    """Return a hash of code and versions that decide a result; ``parts`` are files and folders of the package."""
    versions = {"embedpipe": __version__, **{name: _version(name) for name in DISTRIBUTIONS}}
    files = [file for part in parts for file in _python_files(PACKAGE / part)]
    return hashlib.sha256((repr(versions) + _digest_of_files(files)).encode()).hexdigest()


def result_key(keys: tuple[str, ...], y: npt.NDArray[Any], resample: Resample) -> str:
    """Return the key of a result: keys of vectors, estimator and code, and the rows and labels of the resample."""
    digest = hashlib.sha256(repr(keys).encode())
    inner_splits = [part for split in resample.tune or () for part in split]
    for part in (resample.train, resample.test, y[resample.train], y[resample.test], *inner_splits):
        digest.update(repr(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except LookupError:  # torch is needed for heads on a GPU only
        return ""


def _source(cls: type) -> bytes:
    """Return the source of a class; random bytes where it is unknown, so that no result is reused."""
    if file := getattr(sys.modules[cls.__module__], "__file__", None):
        return Path(file).read_bytes()
    try:
        return inspect.getsource(cls).encode()  # a class of a notebook
    except (OSError, TypeError):
        return uuid.uuid4().bytes


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _digest_of_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
