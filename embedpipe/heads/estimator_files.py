"""The files of a head's estimator: its state in skops' format, and the rows of kNN estimators in FAISS's format.

skops stores arrays, numbers, strings and nested estimators, and names the type of each object. Only data and the types
of `TRUSTED_CLASSES` and `SKLEARN_CLASSES` are made on loading, and their arrays are checked (`estimator_checks`). skops
itself trusts all of scikit-learn, whose compiled estimators read beyond arrays that do not fit each other.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from embedpipe._utils.importing import working_folder_importable
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import option
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
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor
from embedpipe.estimators.wrappers.multilabel import MultiLabelClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.estimator_checks import COLUMN_CLASSES, SKLEARN_CLASSES, check_state, unknown_types
from embedpipe.neighbours import read_flat, write_flat

STATE = "head.skops"
#: The version of skops' format that `read_known` reads.
PROTOCOL = 2

#: Classes that are made on loading: embedpipe's estimators, by their public path.
TRUSTED_CLASSES = (
    AutoClassifier,
    AutoRegressor,
    CentroidClassifier,
    CommonComponentRemover,
    CrossConformalRegressor,
    FaissKNNClassifier,
    FaissKNNRegressor,
    MultiLabelClassifier,
    RejectingClassifier,
    ShrunkenLDA,
    TemperatureCalibratedClassifier,
    TextPriorClassifier,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
    VarianceFloorScaler,
    ZeroShotClassifier,
)
TRUSTED = [f"{cls.__module__}.{cls.__name__}" for cls in TRUSTED_CLASSES]
CLASSES: dict[str, Any] = {f"{cls.__module__}.{cls.__name__}": cls for cls in (*TRUSTED_CLASSES, *SKLEARN_CLASSES)}
KNOWN = {*CLASSES, *COLUMN_CLASSES}


def neighbours_file(number: int) -> str:
    """Return the name of the file with the rows of the kNN estimator of this number."""
    return "neighbours.faiss" if number == 0 else f"neighbours-{number}.faiss"


def write_estimator(estimator: Any, folder: Path) -> list[dict[str, Any]]:
    """Write an estimator's files into a folder.

    Returns
    -------
    list of dict
        ``shape`` and ``metric`` of the rows of each kNN estimator in it, in the order of their files.

    Raises
    ------
    HeadError
        If skops cannot store the estimator.
    """
    neighbours = []
    in_files: dict[int, Any] = {}  # id of an array with rows -> what head.skops holds in its place
    for number, knn in enumerate(_knn_estimators(estimator)):
        write_flat(folder / neighbours_file(number), knn.rows_, knn.metric)
        neighbours.append({"shape": list(knn.rows_.shape), "metric": knn.metric})
        in_files[id(knn.rows_)] = np.empty((0, 0), np.float32)
    import skops.io  # takes seconds, as it imports all of scikit-learn, and torch with it

    try:
        skops.io.dump(copy.deepcopy(estimator, in_files) if in_files else estimator, folder / STATE)
    except OSError:  # such as a full disk
        raise
    except Exception as error:
        raise HeadError(
            f"skops cannot store this {type(estimator).__name__} ({type(error).__name__}: {error}): use an "
            "estimator whose state is arrays, numbers and other estimators"
        ) from error
    return neighbours


def read_estimator(folder: Path, neighbours: list[dict[str, Any]], trust: bool) -> Any:
    """Read what `write_estimator` wrote.

    Parameters
    ----------
    folder : Path
    neighbours : list of dict
        What `write_estimator` returned.
    trust : bool
        Also make types that are on no list, which can run code or end the process.

    Raises
    ------
    HeadError
        If a file is damaged, or names a type that is not trusted.
    """
    state = folder / STATE
    try:
        unknown = types_to_trust(folder)
        if unknown and not trust:
            raise HeadError(
                f"{str(folder)!r} holds types that may run code or end the process: {', '.join(unknown)}; load it only "
                f"if you trust where it comes from ({option('trust', True)})"
            )
        estimator = None if unknown else read_known(state, CLASSES)
        if estimator is None:
            estimator = _read_with_skops(state, trust)
        for number, (knn, rows) in enumerate(zip(_knn_estimators(estimator), neighbours, strict=True)):
            count, dim = rows["shape"]
            knn.rows_ = read_flat(folder / neighbours_file(number), (count, dim), knn.metric)
        check_state(estimator, state)
    except HeadError:
        raise
    except ModuleNotFoundError as error:
        raise HeadError(
            f"cannot load {str(state)!r}: module {error.name!r} is missing: install it, or run from the folder that "
            "holds it"
        ) from error
    except Exception as error:
        kind = "" if zipfile.is_zipfile(state) else " (not a skops file)"
        raise HeadError(
            f"cannot load {str(state)!r}{kind}: {type(error).__name__}: {error}; fit the head again"
        ) from error
    return estimator


def read_known(state: Path, classes: Mapping[str, Any]) -> Any:
    """Return the estimator in a skops file of data and ``classes``; None if the format has another version.

    Raises whatever a damaged file leads to. skops itself takes half a second to import, as it imports all of
    scikit-learn, and pytest, for a list of types. Format: https://skops.readthedocs.io/en/stable/persistence.html
    """
    with zipfile.ZipFile(state) as archive:
        schema = parse_json(archive.read("schema.json"))
        return _Reader(archive, classes).make(schema) if schema["protocol"] == PROTOCOL else None


def _read_with_skops(state: Path, trust: bool) -> Any:
    import skops.io

    with working_folder_importable() if trust else contextlib.nullcontext():
        return skops.io.load(state, trusted=skops.io.get_untrusted_types(file=state) if trust else TRUSTED)


def types_to_trust(folder: Path) -> list[str]:
    """Return the types in a saved head that are only made with ``trust``: a user's own, and most of scikit-learn's."""
    return unknown_types(folder / STATE, KNOWN)


def _imported(name: str) -> Any:
    """Import one of `COLUMN_CLASSES`."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _knn_estimators(value: Any) -> Iterator[Any]:
    """Yield the fitted kNN estimators in an estimator, in an order that depends only on the names of attributes."""
    if isinstance(value, FaissKNNClassifier | FaissKNNRegressor):
        if hasattr(value, "n_samples_fit_"):  # a wrapper also holds the unfitted estimator that it clones
            yield value
    elif isinstance(value, BaseEstimator):
        for _, attribute in sorted(vars(value).items()):
            yield from _knn_estimators(attribute)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from _knn_estimators(element)


class _Reader:
    """Makes the values of nodes. A value that several nodes name by the same number is made once."""

    def __init__(self, archive: zipfile.ZipFile, classes: Mapping[str, Any]) -> None:
        self._archive = archive
        self._classes = classes
        self._made: dict[int, Any] = {}

    def make(self, node: Mapping[str, Any]) -> Any:
        """Return the value of a node."""
        number = node.get("__id__")
        if number in self._made:
            return self._made[number]
        value = self._new(node)
        if number is not None:
            self._made[number] = value
        return value

    def _new(self, node: Mapping[str, Any]) -> Any:
        kind = node["__loader__"]
        if kind == "JsonNode":
            return parse_json(node["content"])
        if kind == "TypeNode":
            return {"str": str, "int": int, "float32": np.float32}[node["__class__"]]
        if kind == "DTypeNode":
            return self.make(node["content"]).dtype
        if kind == "SliceNode":
            return slice(*(node["content"][name] for name in ("start", "stop", "step")))
        if kind == "ListNode":
            return [self.make(part) for part in node["content"]]
        if kind == "TupleNode":
            return tuple(self.make(part) for part in node["content"])
        if kind == "DictNode":
            types = self.make(node["key_types"])
            return {
                type(key): self.make(part) for type, (key, part) in zip(types, node["content"].items(), strict=True)
            }
        if kind == "NdArrayNode":
            return self._array(node)
        name = f"{node['__module__']}.{node['__class__']}"
        cls = self._classes[name] if name not in COLUMN_CLASSES else _imported(name)
        estimator = cls.__new__(cls)
        estimator.__setstate__(self.make(node["content"]))
        return estimator

    def _array(self, node: Mapping[str, Any]) -> Any:
        if node["type"] != "numpy":
            raise ValueError(f"an array must hold numbers or strings, and one holds {node['type']}")
        array = np.load(io.BytesIO(self._archive.read(node["file"])), allow_pickle=False)
        return array if node["__class__"] == "ndarray" else array[()]  # a NumPy scalar
