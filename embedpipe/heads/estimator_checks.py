"""What a head's files must hold before compiled code sees it: known types, whole arrays, shapes that fit each other.

A type that is trusted runs no code when it is loaded, but arrays that do not fit each other can make compiled code read
beyond them, or predict something wrong in silence. So only few types are loaded, and every array of theirs is checked.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, OneHotEncoder, StandardScaler

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import HeadError
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.component_remover import CommonComponentRemover
from embedpipe.estimators.preprocessing.scaler import VarianceFloorScaler
from embedpipe.estimators.text_prior.text_prior import TextPriorClassifier
from embedpipe.estimators.text_prior.zero_shot import ZeroShotClassifier
from embedpipe.neighbours.tuning import CANDIDATES

#: scikit-learn's types that embedpipe's heads are made of, those of `finetune` too. They predict by NumPy, but for
#: the one-hot encoder, whose sparse matrix is filled by compiled code. A function is no data, so none is loaded.
SKLEARN_CLASSES = (
    FunctionTransformer,
    LogisticRegression,
    Normalizer,
    OneHotEncoder,
    Pipeline,
    StandardScaler,
)
#: Those that only a head with columns holds, by the names in its file, with the shapes of their arrays. They are
#: imported where such a head is read, as they import most of scikit-learn.
COLUMN_CLASSES: dict[str, dict[str, str]] = {
    "sklearn.compose._column_transformer.ColumnTransformer": {},
    "sklearn.impute._base.MissingIndicator": {"features_": "i"},
    "sklearn.impute._base.SimpleImputer": {"statistics_": "d"},
}
#: skops' nodes for what is no estimator, and the names of the types that each may hold.
PLAIN_NODES: dict[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict"}),
    "JsonNode": frozenset({"builtins.str"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "TypeNode": frozenset({"builtins.str", "builtins.int", "numpy.float32"}),  # of keys of a dict, or a matrix
    "DTypeNode": frozenset({"numpy.dtype"}),
    "SliceNode": frozenset({"builtins.slice"}),
    "NdArrayNode": frozenset(
        {"numpy.ndarray", *(f"numpy.{name}" for name in ("bool", "int32", "int64", "float32", "float64", "str_"))}
    ),
}
#: Shapes of fitted arrays: d is the number of features, k of classes, m of decision functions (1 for two classes).
#: Other letters stand for the length that they have first.
LINEAR = {"coef_": "md", "intercept_": "m"}
TEXT = {"coef_": "kd", "intercept_": "k"}
SCALER = {"mean_": "d", "var_": "d", "scale_": "d"}
CELLS = {"rows_": "nd", "centroids_": "cd", "cells_": "n"}
SHAPES: dict[type, dict[str, str]] = {
    CentroidClassifier: {"mean_": "d", "coef_": "kd", "intercept_": "k"},
    CommonComponentRemover: {"components_": "cd"},
    FunctionTransformer: {},
    LogisticRegression: LINEAR,
    FaissKNNClassifier: {**CELLS, "labels_": "n"},
    FaissKNNRegressor: {**CELLS, "values_": "n*"},
    OneHotEncoder: {},
    ShrunkenLDA: {**LINEAR, "priors_": "k"},
    StandardScaler: SCALER,
    TextPriorClassifier: TEXT,
    TunedLogisticRegression: LINEAR,
    TunedRidge: {"coef_": "od", "intercept_": "o"},
    TunedRidgeClassifier: LINEAR,
    VarianceFloorScaler: SCALER,
    ZeroShotClassifier: TEXT,
}
#: Attributes that index another: attribute -> what has so many entries.
INDICES = {"labels_": "k", "cells_": "c", "features_": "d"}
#: Largest number of threads that a head may ask for.
THREADS = 1024


def unknown_types(state: Path, known: Set[str]) -> list[str]:
    """Return the names of types in a skops file that are neither data nor among the known estimators.

    Raises
    ------
    ValueError
        If the archive or an array in it claims to be larger than the file.
    """
    with zipfile.ZipFile(state) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > state.stat().st_size or len(
            {member.filename for member in members}
        ) < len(members):
            raise ValueError("the archive claims to hold more than its size")
        for member in members:
            if member.filename.endswith(".npy"):
                _check_header(archive, member)
        schema = parse_json(archive.read("schema.json"))
    return sorted({name for loader, name in _nodes(schema) if not _is_known(loader, name, known)})


def check_state(estimator: Any, state: Path) -> None:
    """Raise HeadError, with the name of the attribute, unless the arrays of every known estimator fit each other."""
    for part in _estimators(estimator):
        if problem := _problem(part):
            raise HeadError(
                f"{str(state)!r}: {problem} in {type(part).__name__}: the head is damaged or was changed; fit it again"
            )


def _is_known(loader: str, name: str, known: Set[str]) -> bool:
    return name in known if loader == "ObjectNode" else name in PLAIN_NODES.get(loader, ())


def _nodes(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the loader and the type's name of every node in the schema of a skops file."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "__loader__" in value or "__class__" in value:
                yield str(value.get("__loader__")), f"{value.get('__module__')}.{value.get('__class__')}"
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _check_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError unless the header of an array agrees with its size, as NumPy makes room for what it claims."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        held = member.file_size - file.tell()
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"array {member.filename} is not what its header says: {dtype} of shape {shape}")


def _estimators(value: Any) -> Iterator[BaseEstimator]:
    if isinstance(value, BaseEstimator):
        yield value
        for attribute in vars(value).values():
            yield from _estimators(attribute)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from _estimators(element)


def _problem(part: BaseEstimator) -> str | None:
    """Return what is wrong with an estimator of a known type; None if nothing is."""
    values: Mapping[str, Any] = vars(part)
    known = _shapes(part) is not None or type(part).__module__ == "embedpipe.estimators"
    fitted = any(name.endswith("_") and not name.startswith("_") for name in values)
    if not known or not fitted:
        return None
    for name, value in values.items():
        arrays = value if isinstance(value, list) else [value]
        for array in arrays:
            if name.endswith("_") and (why := _not_usable(array)):
                return f"{name} {why}"
    jobs = values.get("n_jobs")
    if jobs is not None and not (isinstance(jobs, int) and -1 <= jobs <= THREADS):
        return f"n_jobs is {jobs!r}"
    features = values.get("n_features_in_")
    if isinstance(features, bool) or not isinstance(features, int) or features < 1:
        return f"n_features_in_ is {features!r}"
    lengths = {"d": features}
    if "classes_" in values:
        classes = values["classes_"]
        if not isinstance(classes, np.ndarray) or classes.ndim != 1 or len({*classes.tolist()}) < len(classes):
            return "classes_ is not a list of different classes"
        lengths |= {"k": len(classes), "m": 1 if len(classes) == 2 else len(classes)}
    return _wrong_shape(part, lengths) or _wrong_number(part, lengths) or _wrong_categories(part, features)


def _shapes(part: BaseEstimator) -> dict[str, str] | None:
    """Return the shapes of the arrays of a known estimator; None for others."""
    cls = type(part)
    return SHAPES.get(cls, COLUMN_CLASSES.get(f"{cls.__module__}.{cls.__name__}"))


def _not_usable(value: Any) -> str | None:
    """Return why a fitted value cannot be used: an array of objects, NaN or an infinite number."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biufU":
            return f"is an array of {value.dtype}"
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return "holds NaN or infinite values"
    elif isinstance(value, float) and not math.isfinite(value):
        return f"is {value}"
    return None


def _wrong_shape(part: BaseEstimator, lengths: dict[str, int]) -> str | None:
    """Return which array has another shape or kind than its class has; note the lengths that are seen."""
    values = vars(part)
    for name, letters in (_shapes(part) or {}).items():
        value = values.get(name)
        if value is None and (name in ("centroids_", "cells_") or letters == "d"):
            continue  # an exact search has no cells, and a scaler may leave out a step
        if not isinstance(value, np.ndarray):
            return f"{name} is not an array"
        kinds = "iu" if name in INDICES else "f"
        axes = value.shape[: len(letters) - 1] if letters.endswith("*") else value.shape
        wanted = letters.removesuffix("*")
        if len(axes) != len(wanted) or value.dtype.kind not in kinds:
            return f"{name} is {value.dtype} of shape {value.shape}"
        for letter, length in zip(wanted, axes, strict=True):
            if lengths.setdefault(letter, length) != length:
                return f"{name} has shape {value.shape}, which does not fit the others"
        if name in INDICES and len(value) and not 0 <= value.min() <= value.max() < lengths.get(INDICES[name], 0):
            return f"{name} holds numbers beyond 0 to {lengths.get(INDICES[name], 0) - 1}"
    return None


def _wrong_categories(part: BaseEstimator, features: int) -> str | None:
    """Return whether a one-hot encoder's categories are not those that its columns are counted by."""
    if not isinstance(part, OneHotEncoder):
        return None
    values = vars(part)
    categories, plain = values.get("categories_"), (values.get("_infrequent_enabled"), values.get("drop_idx_"))
    if not isinstance(categories, list) or len(categories) != features or plain != (False, None):
        return "categories_ is not a list with an array for each column"
    if any(not isinstance(each, np.ndarray) or each.ndim != 1 or (np.diff(each) <= 0).any() for each in categories):
        return "categories_ holds an array that is not ascending"
    if values.get("_n_features_outs") != [len(each) for each in categories]:
        return "_n_features_outs does not fit categories_"
    return None


def _wrong_number(part: BaseEstimator, lengths: Mapping[str, int]) -> str | None:
    values = vars(part)
    if isinstance(part, FaissKNNClassifier | FaissKNNRegressor):
        rows, cells = lengths["n"], lengths.get("c", 0)
        limits = {"n_samples_fit_": (rows, rows), "n_neighbors": (1, rows), "probes_": (0, cells)}
        if values.get("probes_"):
            limits["candidates_"] = (1, CANDIDATES[-1])
            if not isinstance(values.get("gate_"), float):
                return f"gate_ is {values.get('gate_')!r}, no number,"
    elif isinstance(part, AutoClassifier | AutoRegressor):
        limits = {"start_": (0, lengths["d"] - 1), "stop_": (1, lengths["d"])}
    else:
        limits = {}
    for name, (low, high) in limits.items():
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            return f"{name} must be {low} to {high}, and is {value!r},"
    return None
