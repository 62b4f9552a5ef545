"""Heads in MLflow: `log_head` logs one as a model, `load_head` reads one back, and pyfunc predicts with it.

Needs the extra ``mlflow``. `log_head` writes a model of MLflow's flavour ``python_function``, whose data is the folder
of the head, and whose loader is this module.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedpipe import heads
from embedpipe._utils.importing import import_extra
from embedpipe._utils.version import __version__
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.sources.access.roots import access_of_request
from embedpipe.sources.locations import absolute

#: The name of the head's folder in a model's data.
FOLDER = "head"
#: Options of `Head.predict` that ``mlflow.pyfunc.load_model(..., model_config={...})`` may set.
CONFIG = ("weights", "device")
#: Provider of a backbone -> the extra with its library.
EXTRAS = {"open_clip": "clip", "sentence-transformers": "text", "transformers": "text", "word-vectors": "text"}


def log_head(head: heads.Head, name: str = "head", **options: Any) -> Any:
    """Log a head as a model, with its parameters and metrics, in the active run or in a new one.

    Parameters
    ----------
    head : Head
    name : str, default "head"
        Name of the model.
    **options
        Of ``mlflow.pyfunc.log_model``, such as ``registered_model_name``, ``signature`` or ``input_example``.

    Returns
    -------
    mlflow.models.model.ModelInfo
        Its ``model_uri`` is what `load_head` and ``mlflow.pyfunc.load_model`` take.

    Raises
    ------
    HeadError
        If the head cannot be saved.
    MissingExtraError
        If MLflow is not installed.

    Examples
    --------
    >>> import embedpipe.mlflow
    >>> info = embedpipe.mlflow.log_head(embedpipe.load_head("photos.head"))  # doctest: +SKIP
    >>> embedpipe.mlflow.load_head(info.model_uri).name  # doctest: +SKIP
    'logreg'
    """
    mlflow = import_extra("mlflow", "mlflow")
    pyfunc = import_extra("mlflow.pyfunc", "mlflow")
    facts: dict[str, Any] = {"head": head.name, "task": head.task, "label": head.label, "backbone": head.spec.title}
    facts |= {"layers": "+".join(head.layers), "rows": head.report.rows, "measured_by": head.report.protocol}
    facts |= {"fingerprint": head.spec.fingerprint(), **head.report.chosen}
    defaults = {"pip_requirements": [_requirement(head.spec)], "model_config": dict.fromkeys(CONFIG)}
    run = contextlib.nullcontext() if mlflow.active_run() else mlflow.start_run()
    with tempfile.TemporaryDirectory() as folder, run:
        saved = head.save(Path(folder) / FOLDER)
        info = pyfunc.log_model(
            name=name, loader_module=__name__, data_path=str(saved), params=facts, **{**defaults, **options}
        )
        metrics = {name: statistics.fmean(values) for name, values in head.report.metrics.items()}
        metrics |= {f"baseline_{name}": statistics.fmean(values) for name, values in head.report.baseline.items()}
        mlflow.log_metrics(metrics, model_id=info.model_id)
    return info


def load_head(model_uri: str, *, trust: bool = False) -> heads.Head:
    """Read a head that `log_head` logged.

    Only the head's folder is read, as by `embedpipe.load_head`: what ``MLmodel`` names is not imported.

    Parameters
    ----------
    model_uri : str
        Such as ``models:/NAME/1`` or ``runs:/RUN/head``.
    trust : bool, default False
        As in `embedpipe.load_head`.

    Returns
    -------
    Head

    Raises
    ------
    HeadError
        If the model holds no head, or the head is damaged or not trusted.
    MissingExtraError
        If MLflow is not installed.
    """
    artifacts = import_extra("mlflow.artifacts", "mlflow")
    return heads.load_head(Path(artifacts.download_artifacts(model_uri)) / "data" / FOLDER, trust=trust)


class HeadModel:
    """What ``mlflow.pyfunc.load_model`` gives for a head: `Head.predict`, with pandas, for whoever sends requests."""

    def __init__(self, head: heads.Head, config: Mapping[str, Any]) -> None:
        self.head = head
        self.options = {name: config[name] for name in CONFIG if config.get(name) is not None}

    def predict(self, model_input: Any) -> Any:
        """Return the table of `Head.predict` as a pandas DataFrame.

        Parameters
        ----------
        model_input : pandas.DataFrame, str, sequence of str, or array
            What `Head.predict` takes: a DataFrame with a column of texts, of paths, of the bytes of files or of
            vectors; an array of pixels. A ``str`` is a text for a head of texts, and else a path.

        Raises
        ------
        ReadError
            If a path is not below the working folder or `EMBEDPIPE_ALLOW_ROOT`: a request must not read other files.
        EmbedpipeError
            As `Head.predict`.
        """
        if self.head.spec.modality == "text":
            model_input = [model_input] if isinstance(model_input, str) else model_input
        else:
            access = access_of_request()
            for path in _strings(model_input):
                access.check(absolute(path))
        if isinstance(model_input, np.ndarray) and model_input.dtype.kind in "OU":
            model_input = model_input.tolist()
        return self.head.predict(model_input, progress=False, **self.options).to_pandas()


def _strings(given: Any) -> Iterator[str]:
    """Yield every string and path in a DataFrame, a mapping, a sequence or an array."""
    if isinstance(given, str | os.PathLike):
        yield os.fspath(given)
    elif isinstance(given, Mapping) or hasattr(given, "columns"):
        for name in given:
            yield from _strings(list(given[name]))
    elif isinstance(given, list | tuple) or getattr(getattr(given, "dtype", None), "kind", "") in ("O", "U"):
        for value in given:
            yield from _strings(value)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> HeadModel:
    """Read the data of a model, as ``mlflow.pyfunc.load_model`` asks for."""
    return HeadModel(heads.load_head(path), model_config or {})


def _requirement(spec: BackboneSpec) -> str:
    """Return what pip installs to predict with a head."""
    extras = {"mlflow", *({EXTRAS[spec.provider]} if spec.provider in EXTRAS else ())}
    return f"embedpipe[{','.join(sorted(extras))}]=={__version__}"
