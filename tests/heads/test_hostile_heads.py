"""Heads whose arrays do not fit each other are refused by name before compiled code sees them."""

from __future__ import annotations

import copy
import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.neighbors import KNeighborsClassifier, RadiusNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from embedpipe.errors import HeadError
from embedpipe.estimators import (
    TextPriorClassifier,
    TunedLogisticRegression,
    VarianceFloorScaler,
    ZeroShotClassifier,
)
from embedpipe.heads.columns.table_columns import TableColumn
from embedpipe.heads.columns.vectoriser import with_columns
from embedpipe.heads.estimator_checks import SHAPES, SKLEARN_CLASSES, check_state
from embedpipe.heads.estimator_files import CLASSES as KNOWN
from embedpipe.heads.estimator_files import (
    PROTOCOL,
    STATE,
    TRUSTED_CLASSES,
    read_estimator,
    read_known,
    types_to_trust,
    write_estimator,
)
from embedpipe.heads.options import FitOptions, Task
from embedpipe.heads.registry import HEADS, make_auto, make_estimator
from embedpipe.heads.training.wrapping import wrap_estimator

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 8)).astype(np.float32)
X[:20] += 2
X[20:40, 1] -= 2
CLASSES = np.repeat(["a", "b", "c"], 20)
TARGETS: dict[str, Any] = {
    "classification": CLASSES,
    "two classes": np.where(CLASSES == "a", "a", "b"),
    "regression": X[:, 0].astype(np.float64),
    "multilabel": (X[:, :3] > 0).astype(int),
}
WRAPPERS: list[dict[str, Any]] = [
    {},
    {"calibrate": True},
    {"reject_share": 0.1, "reject_by": "distance"},
    {"interval_coverage": 0.8},
]


def fitted(name: str, target: str, **options: Any) -> Any:
    task: Task = "classification" if target == "two classes" else target  # type: ignore[assignment]
    _, estimator = make_estimator(name, task, 40, options.pop("remove_components", 0))
    labels = ["p", "q", "r"] if task == "multilabel" else None
    return wrap_estimator(name, estimator, task, FitOptions(**options), labels).fit(X, TARGETS[target])


def combinations() -> Iterator[Any]:
    """Yield each head with each wrapper, as far as they go together."""
    for name, tasks in HEADS.items():
        for target in TARGETS:
            task = "classification" if target == "two classes" else target
            classifies = task == "classification" or (task == "multilabel" and name in ("logreg", "lda", "centroid"))
            for options in WRAPPERS if task in tasks else []:
                for_task = {"calibrate": classifies, "reject_share": task == "classification"}
                for_task["interval_coverage"] = task == "regression"
                if all(for_task[key] for key in options if key in for_task):
                    words = [name, target.replace(" ", "-"), *options]
                    yield pytest.param(name, target, options, id="-".join(words))


def saved(estimator: Any, folder: Path) -> Any:
    """Write an estimator and read it without trust."""
    folder.mkdir(exist_ok=True)
    return read_estimator(folder, write_estimator(estimator, folder), trust=False)


@pytest.mark.parametrize(("name", "target", "options"), [*combinations()])
def test_every_head_loads_without_trust(name: str, target: str, options: dict[str, Any], tmp_path: Path) -> None:
    estimator = fitted(name, target, **options)
    again = saved(estimator, tmp_path)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


@pytest.mark.parametrize("scaler", [StandardScaler(), VarianceFloorScaler(), Normalizer()])
def test_heads_with_normalisation_load_without_trust(scaler: Any, tmp_path: Path) -> None:
    pipeline = make_pipeline(scaler, TunedLogisticRegression()).fit(X, CLASSES)
    np.testing.assert_array_equal(saved(pipeline, tmp_path).predict(X), pipeline.predict(X))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_auto_loads_without_trust(task: Task, tmp_path: Path) -> None:
    estimator = make_auto(task, {"one": 4, "two": 4}, FitOptions()).fit(X, TARGETS[task])
    np.testing.assert_array_equal(saved(estimator, tmp_path).predict(X), estimator.predict(X))


def test_every_trusted_class_with_arrays_has_shapes() -> None:
    wrappers = {"AutoClassifier", "AutoRegressor", "MultiLabelClassifier", "RejectingClassifier"}
    wrappers |= {"TemperatureCalibratedClassifier", "CrossConformalRegressor", "Pipeline", "Normalizer"}
    assert {cls.__name__ for cls in (*TRUSTED_CLASSES, *SKLEARN_CLASSES) if cls not in SHAPES} == wrappers


# ------------------------------------------------------------------ arrays that do not fit


def parts(value: Any) -> Iterator[BaseEstimator]:
    if isinstance(value, BaseEstimator):
        yield value
        for attribute in vars(value).values():
            yield from parts(attribute)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from parts(element)


def cut(array: Any) -> Any:
    return array[:-1]


def widened(array: Any) -> Any:
    return array[..., None]


def with_nan(array: Any) -> Any:
    return np.where(np.arange(array.size).reshape(array.shape) == 0, np.nan, array)


def far(array: Any) -> Any:
    return np.where(np.arange(array.size).reshape(array.shape) == 0, 1 << 30, array)


def negative(array: Any) -> Any:
    return np.where(np.arange(array.size).reshape(array.shape) == 0, -1, array)


def as_text(array: Any) -> Any:
    return array.astype("U8")


MUTATED = [
    ("logreg", "classification", {"calibrate": True, "remove_components": 1}),
    ("logreg", "two classes", {"reject_share": 0.1, "reject_by": "distance"}),
    ("lda", "classification", {}),
    ("centroid", "multilabel", {}),
    ("ridge", "regression", {"interval_coverage": 0.8}),
    ("ridge", "multilabel", {}),
    ("knn", "classification", {}),
    ("knn-approx", "regression", {}),
    ("knn-approx", "classification", {}),
]


@pytest.mark.parametrize(("name", "target", "options"), MUTATED)
def test_array_that_does_not_fit_is_refused_by_name(name: str, target: str, options: dict[str, Any]) -> None:
    """Each array of each estimator inside a head, changed in each way."""
    whole = fitted(name, target, **options)
    check_state(whole, Path("head"))
    count = 0
    for number, part in enumerate(parts(whole)):
        for attribute in SHAPES.get(type(part), {}):
            array = vars(part).get(attribute)
            if array is None:
                continue
            changes: list[Callable[[Any], Any]] = [cut, widened, as_text]
            changes += [with_nan] if array.dtype.kind == "f" else [far, negative]
            for change in changes:
                if (change, attribute) in ((cut, "components_"), (widened, "values_")):
                    continue  # fewer components, or several outputs, are another head that is right
                head = copy.deepcopy(whole)
                setattr(list(parts(head))[number], attribute, change(array))
                with pytest.raises(HeadError, match=rf"\w+_ .* in {type(part).__name__}: the head is damaged"):
                    check_state(head, Path("head"))
                count += 1
    assert count > 3


@pytest.mark.parametrize(
    ("cls", "change", "message"),
    [
        (OneHotEncoder, {"_n_features_outs": [2]}, "_n_features_outs does not fit categories_"),
        (OneHotEncoder, {"categories_": [np.float32([2, 1, 0])]}, "categories_ holds an array that is not ascending"),
        (OneHotEncoder, {"categories_": []}, "categories_ is not a list with an array for each column"),
        (OneHotEncoder, {"drop_idx_": np.array([0])}, "categories_ is not a list with an array for each column"),
        (SimpleImputer, {"statistics_": np.zeros(3)}, "statistics_ has shape"),
        (MissingIndicator, {"features_": np.array([7])}, "features_ holds numbers beyond 0 to 0"),
        (ColumnTransformer, {"n_jobs": 10**9}, "n_jobs is 1000000000"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_parts_of_a_head_with_columns_are_checked(cls: type, change: dict[str, Any], message: str) -> None:
    columns = [TableColumn("price", "number"), TableColumn("kind", "category", ("a", "b", "c"))]
    _, head = with_columns("logreg", TunedLogisticRegression((0.1,)), columns, 6)
    values = np.column_stack([X[:, :7], np.arange(60) % 3]).astype(np.float32)
    values[3, 6] = np.nan
    head.fit(values, CLASSES)
    check_state(head, Path("head"))
    part = [each for each in parts(head) if type(each) is cls and hasattr(each, "n_features_in_")][-1]
    for name, value in change.items():
        setattr(part, name, value)
    with pytest.raises(HeadError, match=message):
        check_state(head, Path("head"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_samples_fit_": 1 << 40}, "n_samples_fit_ must be 60 to 60"),
        ({"n_neighbors": 61}, "n_neighbors must be 1 to 60"),
        ({"n_neighbors": -1}, "n_neighbors must be 1 to 60"),
        ({"probes_": 1 << 40}, "probes_ must be 0 to 7"),
        ({"candidates_": 1 << 40}, "candidates_ must be 1 to 64"),
        ({"gate_": "0"}, "gate_ is '0', no number"),
        ({"n_jobs": 10**9}, "n_jobs is 1000000000"),
        ({"n_features_in_": "8"}, "n_features_in_ is '8'"),
        ({"n_features_in_": 9}, "rows_ has shape"),
        ({"classes_": np.array(["a", "a", "b"])}, "classes_ is not a list of different classes"),
        ({"classes_": np.array([["a"], ["b"], ["c"]])}, "classes_ is not a list"),
        ({"labels_": None}, "labels_ is not an array"),
        ({"rows_": np.full((60, 8), np.inf, np.float32)}, "rows_ holds NaN or infinite values"),
    ],
)
def test_numbers_of_a_knn_head_are_checked(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    head = fitted("knn-approx", "classification")
    for name, value in change.items():
        setattr(head, name, value)
    with pytest.raises(HeadError, match=message):
        check_state(head, tmp_path / STATE)


@pytest.mark.parametrize("cls", [ZeroShotClassifier, TextPriorClassifier])
def test_heads_of_class_names_load_without_trust_and_their_arrays_are_checked(cls: Any, tmp_path: Path) -> None:
    head = cls(RNG.normal(size=(3, 8)).astype(np.float32), ["a", "b", "c"]).fit(X, CLASSES)
    np.testing.assert_array_equal(saved(head, tmp_path).predict(X), head.predict(X))
    for attribute in ("coef_", "intercept_"):
        for change in (cut, widened, as_text, with_nan):
            changed = copy.deepcopy(head)
            setattr(changed, attribute, change(getattr(head, attribute)))
            with pytest.raises(HeadError, match=rf"{attribute} .* in {cls.__name__}: the head is damaged"):
                check_state(changed, Path("head"))


def test_threshold_and_residuals_that_are_not_finite_are_refused() -> None:
    rejecting = fitted("logreg", "classification", reject_share=0.1)
    rejecting.threshold_ = float("nan")
    with pytest.raises(HeadError, match="threshold_ is nan in RejectingClassifier"):
        check_state(rejecting, Path("head"))
    conformal = fitted("ridge", "regression", interval_coverage=0.8)
    conformal.residuals_[0][0] = np.inf
    with pytest.raises(HeadError, match="residuals_ holds NaN or infinite values in CrossConformalRegressor"):
        check_state(conformal, Path("head"))


# ------------------------------------------------------------------ types and files


@pytest.mark.parametrize(
    "estimator",
    [SVC(), DecisionTreeClassifier(), RandomForestClassifier(2), KNeighborsClassifier(), RadiusNeighborsClassifier()],
    ids=lambda estimator: type(estimator).__name__,
)
def test_compiled_estimators_of_scikit_learn_need_trust(estimator: Any, tmp_path: Path) -> None:
    """Their compiled code believes what it is given: an SVC with arrays that do not fit ends the process."""
    neighbours = write_estimator(estimator.fit(X, CLASSES), tmp_path)
    with pytest.raises(HeadError, match=rf"types that may run code or end the process: .*{type(estimator).__name__}"):
        read_estimator(tmp_path, neighbours, trust=False)
    again = read_estimator(tmp_path, neighbours, trust=True)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


@pytest.mark.parametrize(
    ("name", "target"), [("logreg", "two classes"), ("lda", "multilabel"), ("ridge", "regression")]
)
def test_known_types_are_read_as_skops_reads_them(name: str, target: str, tmp_path: Path) -> None:
    write_estimator(fitted(name, target), tmp_path)
    read = read_known(tmp_path / STATE, KNOWN)
    wanted = skops.io.load(tmp_path / STATE, trusted=list(KNOWN))
    assert [*map(type, parts(read))] == [*map(type, parts(wanted))]
    for part, other in zip(parts(read), parts(wanted), strict=True):
        assert vars(part).keys() == vars(other).keys()
        for attribute, value in vars(part).items():
            assert type(value) is type(vars(other)[attribute])
            if not isinstance(value, BaseEstimator | list):
                np.testing.assert_array_equal(value, vars(other)[attribute])
    assert skops.io._protocol.PROTOCOL == PROTOCOL  # else heads are read by skops, which takes longer


def test_hostile_type_inside_a_trusted_one_is_named(tmp_path: Path) -> None:
    head = fitted("logreg", "classification", calibrate=True)
    head.estimator_.coef_ = np.array([SVC()], object)
    skops.io.dump(head, tmp_path / STATE)
    assert types_to_trust(tmp_path) == ["sklearn.svm._classes.SVC"]
    head.estimator_.coef_ = np.log
    skops.io.dump(head, tmp_path / STATE)
    assert types_to_trust(tmp_path) != []


def rewritten(folder: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """Write the archive of a head again, with changed members."""
    with zipfile.ZipFile(folder / STATE) as archive:
        members = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(folder / STATE, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def large_header(name: str, data: bytes) -> bytes:
    """Let an array claim a terabyte."""
    if not name.endswith(".npy"):
        return data
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 37,)})
    return buffer.getvalue() + data[-64:]


def test_array_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    neighbours = write_estimator(fitted("ridge", "regression"), tmp_path)
    rewritten(tmp_path, large_header)
    with pytest.raises(HeadError, match=r"array \d+.npy is not what its header says"):
        read_estimator(tmp_path, neighbours, trust=False)


def test_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path: Path) -> None:
    neighbours = write_estimator(fitted("ridge", "regression"), tmp_path)
    zeros = bytes(1 << 22)
    rewritten(tmp_path, lambda name, data: data + zeros if name.endswith(".npy") else data, compression=8)
    with pytest.raises(HeadError, match="the archive claims to hold more than its size"):
        read_estimator(tmp_path, neighbours, trust=False)


@pytest.mark.parametrize("place", [4, 8, 32, 33, 37])
@pytest.mark.parametrize("value", [-1, 1 << 62, 0])
def test_faiss_header_with_any_number_never_reads_beyond_the_file(place: int, value: int, tmp_path: Path) -> None:
    head = fitted("knn", "classification")
    neighbours = write_estimator(head, tmp_path)
    data = bytearray((tmp_path / "neighbours.faiss").read_bytes())
    data[place : place + 8] = struct.pack("<q", value)
    (tmp_path / "neighbours.faiss").write_bytes(data)
    with pytest.raises(HeadError, match="is not a flat cosine index"):
        read_estimator(tmp_path, neighbours, trust=False)


@pytest.mark.parametrize("shape", [[60, -8], [60.0, 8.0], [1 << 62, 1 << 62], ["60", 8], [60], [60, 8, 1]])
def test_shape_in_the_manifest_is_checked(shape: Any, tmp_path: Path) -> None:
    write_estimator(fitted("knn", "classification"), tmp_path)
    with pytest.raises(HeadError):
        read_estimator(tmp_path, [{"shape": shape, "metric": "cosine"}], trust=False)
