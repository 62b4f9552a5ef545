"""A head on disk: a folder of files that hold numbers and names, and nothing that runs on load.

``head.skops`` holds the estimator's state, in skops' format; ``neighbours.faiss`` the training rows of a kNN head, in
FAISS's own (``neighbours-1.faiss`` and so on those of others inside); ``manifest.json`` the rest, with the SHA-256 of
each. The checksums find damage; against an attacker, who can write checksums too, stands the list of types that skops
may make.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from embedpipe._utils.atomic import whole_folder
from embedpipe._utils.importing import working_folder_importable
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import HeadError, StoreError, UsageError
from embedpipe.estimators.auto import AutoClassifier, AutoRegressor
from embedpipe.estimators.knn import FaissKNNClassifier, FaissKNNRegressor
from embedpipe.estimators.linear.centroid import CentroidClassifier
from embedpipe.estimators.linear.lda import ShrunkenLDA
from embedpipe.estimators.linear.logistic_regression import TunedLogisticRegression
from embedpipe.estimators.linear.ridge import TunedRidge, TunedRidgeClassifier
from embedpipe.estimators.preprocessing.component_remover import CommonComponentRemover
from embedpipe.estimators.preprocessing.scaler import VarianceFloorScaler
from embedpipe.estimators.wrappers.calibration import TemperatureCalibratedClassifier
from embedpipe.estimators.wrappers.conformal import CrossConformalRegressor
from embedpipe.estimators.wrappers.multilabel import MultiLabelClassifier
from embedpipe.estimators.wrappers.rejection import RejectingClassifier
from embedpipe.heads.options import Task
from embedpipe.heads.scoring import FitReport
from embedpipe.neighbours import read_flat, write_flat

FORMAT = 1
MANIFEST, STATE, NEIGHBOURS = "manifest.json", "head.skops", "neighbours.faiss"
#: How often a head is read anew that changes while it is read.
READS = 10
LIBRARIES = ("embedpipe", "scikit-learn", "numpy", "faiss-cpu", "skops")

#: What skops may make beside what it trusts itself (scikit-learn's estimators and NumPy's arrays).
OURS = (
    AutoClassifier,
    AutoRegressor,
    CentroidClassifier,
    CommonComponentRemover,
    CrossConformalRegressor,
    FaissKNNClassifier,
    FaissKNNRegressor,
    VarianceFloorScaler,
    MultiLabelClassifier,
    RejectingClassifier,
    ShrunkenLDA,
    TemperatureCalibratedClassifier,
    TunedLogisticRegression,
    TunedRidge,
    TunedRidgeClassifier,
)
OUR_NAMES = [f"{kind.__module__}.{kind.__name__}" for kind in OURS]


def check_target(to: str | Path) -> Path:
    """Return the folder a head is to be saved in. Raises UsageError if something else is there."""
    if "://" in os.fspath(to):
        raise UsageError(f"{os.fspath(to)!r} is a URL: a head is saved in a local folder")
    folder = Path(to).resolve()
    in_a_file = any(place.is_file() for place in (folder, *folder.parents))
    if in_a_file or (folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise UsageError(f"{str(folder)!r} is there and is not a head: give a new or empty folder")
    return folder


def write_head(
    to: str | Path,
    *,
    name: str,
    estimator: Any,
    classes: npt.NDArray[Any] | None,
    spec: BackboneSpec,
    label: str,
    label_separator: str,
    store: str,
    store_id: str,
    store_version: int,
    report: FitReport,
) -> Path:
    """Write the folder of a head, whole or not at all; a head that is there is replaced. See `Head` for the fields.

    Raises
    ------
    UsageError
        If something else than a head is there.
    HeadError
        If skops cannot store the estimator.
    """
    folder = check_target(to)
    with whole_folder(folder) as part:
        neighbours = _write_state(estimator, part)
        manifest = {
            "format": FORMAT,
            "head": name,
            "estimator": f"{type(estimator).__module__}.{type(estimator).__qualname__}",
            "classes": None if classes is None else classes.tolist(),
            "label": label,
            "label_separator": label_separator,
            "spec": spec.to_dict(),
            "fingerprint": spec.fingerprint(),
            "store": store,
            "store_id": store_id,
            "store_version": store_version,
            "report": asdict(report),
            "neighbours": neighbours,
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "python": platform.python_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {path.name: _sha256(path) for path in sorted(part.iterdir())},
        }
        text = json.dumps(manifest, indent=2)
        # Numbers of one list on one line: a confusion matrix has many.
        text = re.sub(r"\[[\d\s.,e+-]+\]", lambda found: " ".join(found[0].split()), text)
        (part / MANIFEST).write_text(text + "\n")
    return folder


def read_head(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Read what `write_head` wrote: the fields of a `Head`. Parameters and errors are those of `load_head`."""
    folder = Path(path)
    manifest = _read_manifest(folder)
    for _ in range(READS):
        try:
            return _read(folder, manifest, trust)
        except HeadError:
            # Another process may have saved a new one meanwhile.
            if (again := _read_manifest(folder)) == manifest:
                raise
            manifest = again
    raise HeadError(f"{str(folder)!r} is being saved over and over: load it when that has ended")


def _read(folder: Path, manifest: dict[str, Any], trust: bool) -> dict[str, Any]:
    try:
        files, classes = manifest["files"], manifest["classes"]
        spec = BackboneSpec.from_json(json.dumps(manifest["spec"]))
        report = FitReport(**manifest["report"])
        # Heads of the time when there could be but one have no list.
        rows = manifest["neighbours"] or []
        neighbours = [rows] if isinstance(rows, dict) else list(rows)
        names = {STATE, *(_rows_file(i) for i in range(len(neighbours)))}
        if not {*files} == names or spec.fingerprint() != manifest["fingerprint"] or not spec.layers:
            raise ValueError("its parts do not agree")
        about = {name: manifest[name] for name in ("label", "store", "store_id", "store_version")}
        name = str(manifest["head"])
        about["label_separator"] = manifest.get("label_separator", ";")
        if not all(isinstance(about[key], str) for key in ("label", "store", "store_id", "label_separator")):
            raise ValueError("a name is no text")
        if report.task not in get_args(Task) or not isinstance(report.chosen, dict):
            raise ValueError("the report is none")
    except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
        raise HeadError(
            f"{str(folder / MANIFEST)!r} is damaged or was changed ({error!r}): fit the head again"
        ) from error
    for file, expected in files.items():
        if not (folder / file).is_file():
            raise HeadError(f"{str(folder)!r} has no {file}: the head is not whole; copy or fit it again")
        if _sha256(folder / file) != expected:
            raise HeadError(
                f"{str(folder / file)!r} is not what the manifest says (SHA-256): the head is damaged or was changed; "
                "copy or fit it again"
            )
    estimator = _read_state(folder, neighbours, trust)
    found = getattr(estimator, "classes_", None)
    same = classes is None if found is None else np.asarray(found).tolist() == classes
    dim = sum(layer.dim for layer in spec.layers)
    if not same or getattr(estimator, "n_features_in_", None) != dim:
        raise HeadError(f"{str(folder)!r}: the estimator is not the manifest's: the head was changed; fit it again")
    _try(estimator, dim, folder)
    return {"name": name, "estimator": estimator, "spec": spec, "report": report, **about}


def _try(estimator: Any, dim: int, folder: Path) -> None:
    """Predict one row, as an estimator whose parts do not fit each other fails at that."""
    row = np.ones((1, dim), np.float32)
    try:
        outputs = [estimator.predict(row)]
        for scores in ("predict_proba", "decision_function"):
            if hasattr(estimator, scores):
                outputs.append(np.asarray(getattr(estimator, scores)(row), np.float64))
        if not all(np.isfinite(part).all() for part in outputs if np.asarray(part).dtype.kind == "f"):
            raise ValueError("it gives NaN or infinite values")
    except Exception as error:
        raise HeadError(
            f"{str(folder)!r}: the estimator cannot predict ({type(error).__name__}: {error}): the head is "
            "damaged or was changed; fit it again"
        ) from error


def _rows_file(number: int) -> str:
    return NEIGHBOURS if number == 0 else f"neighbours-{number}.faiss"


def _neighbours_in(value: Any) -> Iterator[Any]:
    """Yield the kNN estimators in an estimator, or in what it holds, in an order that only their places decide."""
    if isinstance(value, FaissKNNClassifier | FaissKNNRegressor):
        if hasattr(value, "n_samples_fit_"):  # and is not what is cloned
            yield value
    elif isinstance(value, BaseEstimator):
        for _, held in sorted(vars(value).items()):
            yield from _neighbours_in(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _neighbours_in(held)


def _write_state(estimator: Any, folder: Path) -> list[dict[str, Any]]:
    """Write the estimator's files; return shape and metric of the rows of each kNN estimator in it."""
    neighbours = []
    elsewhere: dict[int, Any] = {}  # rows that are in files of their own
    for number, one in enumerate(_neighbours_in(estimator)):
        write_flat(folder / _rows_file(number), one.rows_, one.metric)
        neighbours.append({"shape": list(one.rows_.shape), "metric": one.metric})
        elsewhere[id(one.rows_)] = np.empty((0, 0), np.float32)
    import skops.io  # takes seconds, as it imports all of scikit-learn, and torch with it

    try:
        skops.io.dump(copy.deepcopy(estimator, elsewhere) if elsewhere else estimator, folder / STATE)
    except Exception as error:
        raise HeadError(
            f"skops cannot store this {type(estimator).__name__} ({type(error).__name__}: {error}): use an "
            "estimator whose state is arrays, numbers and other estimators"
        ) from error
    return neighbours


def _read_state(folder: Path, neighbours: list[dict[str, Any]], trust: bool) -> Any:
    import skops.io

    state = folder / STATE
    try:
        unknown = types_to_trust(folder)
        if unknown and not trust:
            raise HeadError(
                f"{str(folder)!r} holds types that may run code: {', '.join(unknown)}; load it only if you trust where "
                "it comes from (--trust, trust=True)"
            )
        with working_folder_importable() if trust else contextlib.nullcontext():
            estimator = skops.io.load(state, trusted=[*OUR_NAMES, *unknown])
        keepers = _neighbours_in(estimator) if neighbours else ()  # of once, some have theirs in their state
        for number, (one, rows) in enumerate(zip(keepers, neighbours, strict=True)):
            count, dim = rows["shape"]
            one.rows_ = read_flat(folder / _rows_file(number), (count, dim), one.metric)
    except HeadError:
        raise
    except ModuleNotFoundError as error:
        raise HeadError(
            f"cannot load {str(state)!r}: there is no module {error.name!r}: run this where it is, or install it"
        ) from error
    except Exception as error:
        kind = "" if zipfile.is_zipfile(state) else " (not a skops file)"
        raise HeadError(
            f"cannot load {str(state)!r}{kind}: {type(error).__name__}: {error}; fit the head again"
        ) from error
    return estimator


def types_to_trust(folder: Path) -> list[str]:
    """Return the types in a saved head that only ``trust`` makes: a user's own, and some of scikit-learn's."""
    import skops.io

    return [name for name in skops.io.get_untrusted_types(file=folder / STATE) if name not in OUR_NAMES]


def _read_manifest(folder: Path) -> dict[str, Any]:
    if folder.is_file():
        raise HeadError(f"{str(folder)!r} is a file: a head is a folder, as `embedpipe fit --to FOLDER` makes it")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except OSError as error:
        store = ", but a feature store" if (folder / "_delta_log").is_dir() else ""
        raise HeadError(f"there is no head at {str(folder)!r}{store}: it has no {MANIFEST} ({error})") from error
    except (ValueError, RecursionError) as error:
        raise HeadError(f"{str(folder / MANIFEST)!r} is damaged: {error}; fit the head again") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise HeadError(
            f"{str(folder)!r} has format {version!r}, and this version reads {FORMAT}: upgrade or fit again"
        )
    return dict(manifest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
