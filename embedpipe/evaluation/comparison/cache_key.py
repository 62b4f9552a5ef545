"""Keys of cached results: everything that a candidate's result on one resample depends on."""

from __future__ import annotations

import hashlib
import inspect
import sys
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt

from embedpipe._utils.version import __version__
from embedpipe.splits.splits import Resample

PACKAGE = Path(__file__).parents[2]
#: Code of embedpipe that decides a result: files or folders below the package.
CODE = ("estimators", "neighbours", "splits", "heads", "evaluation/comparison/measuring.py", "_utils/blas_threads.py")
#: Distributions that decide a result.
DISTRIBUTIONS = ("faiss-cpu", "numpy", "scikit-learn", "scipy", "torch")


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


def code_key() -> str:
    """Return a hash of the code and of the versions that decide a result."""
    versions = {"embedpipe": __version__, **{name: _version(name) for name in DISTRIBUTIONS}}
    files = [file for part in CODE for file in _python_files(PACKAGE / part)]
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
