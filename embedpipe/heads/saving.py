"""A head on disk: a folder of files that hold numbers and names, and nothing that runs on load.

====================  =================================================================================================
File                  Holds
====================  =================================================================================================
``manifest.json``     `FORMAT`, the fields of `Head` but the estimator, the spec's fingerprint, library versions, the
                      SHA-256 of every other file, and a checksum of all this: see `write_head`
``head.skops``        the estimator without the rows of kNN estimators: see `estimator_files`
``neighbours.faiss``  the rows of a kNN estimator; those of further ones in ``neighbours-1.faiss`` and so on
``*.safetensors``     the projection of a reduced layer, named after its SHA-256
====================  =================================================================================================

To change the format, change `write_head` and `_read` here (or `estimator_files`), raise `FORMAT`, and update
``docs/reference/formats.md``. ``tests/released/test_released.py`` fails where the head of a release cannot be read, and
``tests/heads/test_saving.py`` has the other tests. Checksums detect damage. They do not stop an attacker, who can write
checksums too: the list of types that skops makes does.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embedpipe._utils.atomic import whole_folder
from embedpipe._utils.checksums import file_sha256, with_checksum, without_checksum
from embedpipe._utils.folder_kinds import HEAD, but_is, check_replaceable, refuse_url
from embedpipe._utils.machine.permissions import closed
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.version import __version__, other_format
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import HeadError, StoreError
from embedpipe.heads.columns.table_columns import TableColumn
from embedpipe.heads.estimator_files import STATE, neighbours_file, read_estimator, write_estimator
from embedpipe.heads.options import Task
from embedpipe.heads.scoring import FitReport

FORMAT = 1
MANIFEST = "manifest.json"
#: Number of attempts to read a head that another process replaces at the same time.
READS = 10
LIBRARIES = ("scikit-learn", "numpy", "faiss-cpu", "skops")
#: Fields of `Head` that the manifest holds as they are, all of them strings but the last.
PLAIN_FIELDS = ("label", "label_separator", "store", "store_id", "store_version")


def check_target(to: str | Path) -> Path:
    """Return the folder that a head is to be saved in. Raises UsageError unless it is new, empty or a head."""
    refuse_url(to, "a head is saved in a local folder")
    folder = Path(to).resolve()
    check_replaceable(folder, HEAD)
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
    columns: Sequence[TableColumn],
) -> Path:
    """Write the folder of a head atomically; an existing head is replaced. The parameters are the fields of `Head`.

    Raises
    ------
    UsageError
        If the folder exists and is not a head.
    HeadError
        If skops cannot store the estimator.
    """
    folder = check_target(to)
    with whole_folder(folder) as part:
        neighbours = write_estimator(estimator, part)
        for layer in spec.layers:
            if layer.reduction and layer.reduction.read:
                (part / layer.reduction.file).write_bytes(layer.reduction.read().to_bytes())
        manifest = {
            "format": FORMAT,
            "head": name,
            "estimator": f"{type(estimator).__module__}.{type(estimator).__qualname__}",
            "classes": None if classes is None else classes.tolist(),
            "columns": [asdict(column) for column in columns],
            "label": label,
            "label_separator": label_separator,
            "spec": spec.to_dict(),
            "fingerprint": spec.fingerprint(),
            "store": store,
            "store_id": store_id,
            "store_version": store_version,
            "report": asdict(report),
            "neighbours": neighbours,
            "libraries": {"embedpipe": __version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}},
            "python": platform.python_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {path.name: file_sha256(path) for path in sorted(part.iterdir())},
        }
        write_manifest(manifest, part)
    return folder


def write_manifest(manifest: Mapping[str, Any], folder: Path) -> None:
    """Write the manifest of a head, with its checksum."""
    text = json.dumps(with_checksum(manifest), indent=2)
    # A list of numbers stays on one line: a confusion matrix has many. Within a text there are no line breaks.
    text = re.sub(r"\[\n[\d\s.,e+-]+\]", lambda match: " ".join(match[0].split()), text)
    (folder / MANIFEST).write_text(text + "\n")


def read_head(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Read what `write_head` wrote: the fields of a `Head`. Parameters and errors are those of `load_head`."""
    folder = Path(path)
    manifest = read_manifest(folder)
    for _ in range(READS):
        try:
            return _read(folder, manifest, trust)
        except PermissionError as error:
            raise HeadError(f"cannot open the head {str(folder)!r}: {closed(error.filename)}") from error
        except HeadError:
            # Another process may have replaced the head while it was read.
            if (newest := read_manifest(folder)) == manifest:
                raise
            manifest = newest
    raise HeadError(f"{str(folder)!r} changed {READS} times while it was read: load it when no process saves to it")


def _read(folder: Path, manifest: dict[str, Any], trust: bool) -> dict[str, Any]:
    try:
        files, classes = manifest["files"], manifest["classes"]
        spec = BackboneSpec.from_json(json.dumps(manifest["spec"])).with_projections(str(folder.resolve()))
        report = FitReport(**manifest["report"])
        neighbours = list(manifest["neighbours"])
        names = {STATE, *(neighbours_file(number) for number in range(len(neighbours)))}
        names |= {layer.reduction.file for layer in spec.layers if layer.reduction}
        if not {*files} == names or spec.fingerprint() != manifest["fingerprint"] or not spec.layers:
            raise ValueError("its parts do not agree")
        fields = {name: manifest[name] for name in PLAIN_FIELDS}
        columns = tuple(
            TableColumn(each["name"], each["kind"], tuple(each["categories"])) for each in manifest["columns"]
        )
        if not all(isinstance(fields[name], str) for name in PLAIN_FIELDS[:-1]):
            raise ValueError("a name is not a string")
        if report.task not in get_args(Task) or not isinstance(report.chosen, dict):
            raise ValueError("the report is not a report")
    except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
        raise HeadError(
            f"{str(folder / MANIFEST)!r} is damaged or was changed ({error!r}): fit the head again"
        ) from error
    for file, expected in files.items():
        if not (folder / file).is_file():
            raise HeadError(f"{str(folder)!r} has no {file}: the head is incomplete; copy or fit it again")
        if file_sha256(folder / file) != expected:
            raise HeadError(
                f"{str(folder / file)!r} does not have the SHA-256 of the manifest: the head is damaged or was "
                "changed; copy or fit it again"
            )
    estimator = read_estimator(folder, neighbours, trust)
    learned = getattr(estimator, "classes_", None)
    same_classes = classes is None if learned is None else np.asarray(learned).tolist() == classes
    dim = sum(layer.dim for layer in spec.layers) + len(columns)
    if not same_classes or getattr(estimator, "n_features_in_", None) != dim:
        raise HeadError(
            f"{str(folder)!r}: the estimator does not match the manifest: the head was changed; fit it again"
        )
    _check_predicts(estimator, dim, folder)
    made = {"estimator": estimator, "spec": spec, "report": report, "columns": columns}
    return {"name": str(manifest["head"]), **made, **fields}


def _check_predicts(estimator: Any, dim: int, folder: Path) -> None:
    """Predict one row, which fails for an estimator whose parts do not fit each other. Raises HeadError."""
    row = np.ones((1, dim), np.float32)
    try:
        outputs = [estimator.predict(row)]
        for method in ("predict_proba", "decision_function"):
            if hasattr(estimator, method):
                outputs.append(np.asarray(getattr(estimator, method)(row), np.float64))
        classes = getattr(estimator, "classes_", None)
        if classes is not None and hasattr(estimator, "predict_proba") and outputs[1].shape != (1, len(classes)):
            raise ValueError(f"it gives {outputs[1].shape[1:]} probabilities for {len(classes)} classes")
        if not all(np.isfinite(output).all() for output in outputs if np.asarray(output).dtype.kind == "f"):
            raise ValueError("it gives NaN or infinite values")
    except Exception as error:
        raise HeadError(
            f"{str(folder)!r}: the estimator cannot predict ({type(error).__name__}: {error}): the head is "
            "damaged or was changed; fit it again"
        ) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the values of the manifest of a head. Raises HeadError if there is none, or it is damaged."""
    try:
        os.lstat(folder)
    except PermissionError as error:
        raise HeadError(f"cannot open the head {str(folder)!r}: {closed(folder)}") from error
    except OSError as error:
        raise HeadError(f"there is no head at {str(folder)!r}: `embedpipe fit STORE --to FOLDER` makes one") from error
    if folder.is_file():
        raise HeadError(f"{str(folder)!r} is a file, and a head is a folder, as `embedpipe fit --to FOLDER` makes it")
    try:
        manifest = parse_json(read_regular(folder / MANIFEST))
    except PermissionError as error:
        raise HeadError(f"cannot open the head {str(folder)!r}: {closed(folder / MANIFEST)}") from error
    except OSError as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({error})"
        raise HeadError(
            f"{str(folder)!r} is not a head{but_is(folder)}: it has no {MANIFEST}{reason}. Give a folder that "
            "`embedpipe fit STORE --to FOLDER` made"
        ) from error
    except ValueError as error:
        raise HeadError(f"{str(folder / MANIFEST)!r} is damaged: {error}; fit the head again") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        libraries = manifest.get("libraries") if isinstance(manifest, dict) else None
        writer = libraries.get("embedpipe") if isinstance(libraries, dict) else None
        raise HeadError(f"{str(folder / MANIFEST)!r} {other_format(version, FORMAT, writer)}. Or fit the head again")
    try:
        return without_checksum(manifest)
    except ValueError as error:
        raise HeadError(
            f"{str(folder / MANIFEST)!r} is damaged or was edited ({error}): copy the head again, or fit it again"
        ) from error
