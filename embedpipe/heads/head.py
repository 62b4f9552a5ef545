"""`Head`: a fitted estimator that knows which backbone its vectors come from."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import Failure, UsageError
from embedpipe.heads.saving import read_head, write_head
from embedpipe.heads.scoring import FitReport
from embedpipe.sources.opening import open_source
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore
from embedpipe.store.scan import read_layers

if TYPE_CHECKING:
    from embedpipe._utils.parameters import PredictParameters

REJECTION = ("rejected", "reject_score")
OPTIONS = (SourceOptions, ReloadOptions, ComputeOptions)


@dataclass
class Head:
    """A fitted head.

    Made by `embedpipe.fit` and `embedpipe.load_head`.

    Attributes
    ----------
    name : str
        ``logreg``, say, or the class of the user's own estimator.
    estimator : scikit-learn estimator
        Takes vectors as the store has them, float32 (n_samples, dim).
    spec : BackboneSpec
        What made the vectors, with the layers that were used, in the order in which they are joined.
    label : str
        The store's column that was learned.
    store, store_id, store_version : str, str, int
        Where it was learned: path, table id and table version.
    report : FitReport
        How it was measured.
    label_separator : str
        What stands between the labels of an item, of the multilabel task.
    """

    name: str
    estimator: Any = field(repr=False)
    spec: BackboneSpec = field(repr=False)
    label: str
    store: str
    store_id: str
    store_version: int
    report: FitReport = field(repr=False)
    label_separator: str = field(default=";", repr=False)

    @property
    def task(self) -> str:
        """``classification``, ``regression`` or ``multilabel``."""
        return self.report.task

    @property
    def layers(self) -> dict[str, int]:
        """Name of each layer whose vectors are joined end to end, in order, and the length of its vectors."""
        return {layer.name: layer.dim for layer in self.spec.layers}

    @property
    def classes(self) -> npt.NDArray[Any] | None:
        """The classes, or labels, in the order of the scores, (n_classes,); None for regression."""
        return None if self.task == "regression" else np.asarray(self.estimator.classes_)

    def is_of(self, store: FeatureStore) -> bool:
        """Say whether it was fitted on this very version of this very table."""
        return (self.store_id, self.store_version) == (store.table_id, store.version)

    def save(self, to: str | Path) -> Path:
        """Save into a folder; see `embedpipe.load_head`."""
        return write_head(to, classes=self.classes, **{part.name: getattr(self, part.name) for part in fields(self)})

    @takes_options(*OPTIONS)
    def predict(self, source: Any, *, progress: bool | None = None, **options: Unpack[PredictParameters]) -> pa.Table:
        """Predict for every item of a source, or every row of a store.

        The backbone and preprocessing that made the head's vectors are loaded by themselves. Items that fail are
        rows with an ``error`` and no prediction. What is embedded is not kept: for a large or repeated
        job, embed into a store, which resumes, and predict from that.

        Parameters
        ----------
        source : str, path-like, FeatureStore or in-memory data
            Images or texts, whichever the head was fitted on, as `embedpipe.embed` takes them: for texts a list of
            ``str`` is one of texts. Or a feature store of the same backbone.
        progress : bool, optional
            Show progress on standard error; by default only on a terminal.
        **options
            Fields of `SourceOptions`, `ReloadOptions` and `ComputeOptions`.

        Returns
        -------
        pyarrow.Table
            One row an item: ``id``, ``uri``, the prediction under the name of the label column (of several labels:
            joined by the separator), with ``<label>_low`` and ``<label>_high`` of a head with intervals, then for
            each class ``probability_<class>`` or ``score_<class>`` by what the estimator gives (one score, of the
            second, for two classes), of a head that may reject ``rejected`` and ``reject_score`` (the prediction
            stays), ``actual`` where the source has labels (of a store: the column that was learned), and ``error``.

        Raises
        ------
        SpecMismatchError
            If the store, or the backbone that loads, is not the one that made the head's vectors.
        EmbedpipeError
            If the source cannot be listed, or the backbone cannot be loaded.
        """
        source_options, reload_options, compute = build_options(OPTIONS, options)
        if isinstance(source, str | os.PathLike) and FeatureStore.exists(os.fspath(source)):
            source = FeatureStore(os.fspath(source))
        if isinstance(source, FeatureStore):
            return self._predict_store(source)
        from embedpipe.backbones import reload_backbone  # needs torch, which a store does not
        from embedpipe.embedding import stream_vectors

        if isinstance(source, np.ndarray) and source.dtype.kind == "f":
            raise UsageError(
                f"an array of {source.dtype} is no source of {self.spec.modality}s: vectors go to "
                "head.estimator.predict(X)"
            )
        listing = open_source(source, source_options, self.spec.modality)
        backbone = reload_backbone(self.spec, reload_options, compute.device, "the head")
        found = _Predictions(self, len(listing))
        failures: list[Failure] = []
        messages = stream_vectors(listing, backbone, compute, Progress(progress))
        with contextlib.closing(messages):
            for message in messages:
                if isinstance(message, Failure):
                    failures.append(message)
                else:
                    found.add(message.rows, np.hstack([message.vectors[layer.column] for layer in self.spec.layers]))
        # A source's label is what the head learned where both are called that, or where the user says so.
        same = self.label == "label" or source_options.label is not None
        return self._table(found, listing.table, failures, "label" if same else None)

    def _predict_store(self, store: FeatureStore) -> pa.Table:
        advice = "A head only fits vectors of its own backbone: fit one on this store, or embed it with the head's."
        self.spec.require(
            store.spec.only(*self.layers),
            f"{store.path!r} holds vectors of another backbone spec than the head was fitted on",
            "in the head",
            "in the store",
            advice,
        )
        names = ["id", "uri", "stage", "exception", "message"]
        failures = [Failure(*row.values()) for row in store.failures().select(names).to_pylist()]
        rows = store.to_arrow(["id", "uri", *([self.label] if self.label in store.data_columns else [])])
        ids = rows.column("id").combine_chunks()
        _, X = read_layers(store.table, self.spec.layers, ids)
        # An item that broke after it was embedded still has the vector of what it was.
        failed = pa.array([failure.id for failure in failures], pa.string())
        good = np.flatnonzero(~np.asarray(pc.is_in(ids, value_set=failed)))
        found = _Predictions(self, len(X))
        found.add(good, X if len(good) == len(X) else X[good])
        return self._table(found, rows, failures, self.label)

    def _table(self, found: _Predictions, rows: pa.Table, failures: list[Failure], actual: str | None) -> pa.Table:
        """Join predictions and failures to what is known of the items, one row each."""
        errors = {failure.id: failure.why for failure in failures}
        ids = rows.column("id").to_pylist()
        columns: dict[str, Any] = {"id": rows.column("id"), "uri": rows.column("uri")}
        scores, rejection = found.scores(), found.rejection()
        taken = ("id", "uri", "error", "actual", *scores, *rejection)
        name = "prediction" if self.label in taken else self.label
        columns[name] = found.labels()
        columns.update({**found.interval(name), **scores, **rejection})
        if actual in rows.column_names and rows.column(actual).null_count < len(ids):
            columns["actual"] = rows.column(actual)
        columns["error"] = pa.array([errors.get(id) for id in ids], pa.string())
        table = pa.table(columns)
        listed = set(ids)
        unlisted = [failure for failure in failures if failure.id not in listed]
        if not unlisted:
            return table
        lost = pa.table(
            {
                "id": pa.array([failure.id for failure in unlisted], pa.string()),
                "uri": pa.array([failure.uri for failure in unlisted], pa.string()),
                "error": pa.array([errors[failure.id] for failure in unlisted], pa.string()),
            }
        )
        return pa.concat_tables([table, lost], promote_options="default")


def load_head(path: str | Path, *, trust: bool = False) -> Head:
    """Read a head that `embedpipe.fit` saved.

    Parameters
    ----------
    path : str or path-like
        Its folder.
    trust : bool
        Also make types that only this head's file names, such as an estimator of your own: that can run
        code, so only say so for a head of your own.

    Raises
    ------
    HeadError
        If there is no head, it is damaged or was changed, or it needs types that are not trusted.
    """
    return Head(**read_head(path, trust=trust))


class _Predictions:
    """Labels, scores, intervals and rejections of rows, filled in any order; a row that is never filled has none."""

    def __init__(self, head: Head, rows: int) -> None:
        self._head = head
        self._filled = np.zeros(rows, bool)
        self._found: dict[str, npt.NDArray[Any]] = {}
        kinds = ("predict_proba", "decision_function") if head.task != "regression" else ()
        self._kind = next((kind for kind in kinds if hasattr(head.estimator, kind)), None)

    def add(self, rows: Any, X: npt.NDArray[np.float32]) -> None:
        """Predict rows from their vectors, float32 (n, dim)."""
        if not len(X):
            return
        asked = ["predict", "predict_interval", "rejected", "reject_score", *([self._kind] if self._kind else [])]
        for method in asked:
            if not hasattr(self._head.estimator, method):
                continue
            values = np.asarray(getattr(self._head.estimator, method)(X))
            if method == self._kind:
                values = values.astype(np.float64).reshape(len(X), -1)
            if method not in self._found:
                classes = self._head.classes if method == "predict" and values.ndim == 1 else None
                dtype = values.dtype if classes is None else classes.dtype
                self._found[method] = np.zeros((len(self._filled), *values.shape[1:]), dtype)
            self._found[method][rows] = values
        self._filled[rows] = True

    def labels(self) -> pa.Array:
        """Return the predictions, null where there is none."""
        classes = self._head.classes
        found = self._found.get("predict")
        if found is None:
            return pa.nulls(len(self._filled), pa.array(np.zeros(1) if classes is None else classes).type)
        if classes is not None and found.ndim == 2:
            texts = [self._head.label_separator.join(classes[row].tolist()) for row in found]
            return pa.array(texts, pa.string(), mask=~self._filled)
        return self._column(found)

    def interval(self, name: str) -> dict[str, pa.Array]:
        """Return the ends of the prediction's interval, where the head gives one."""
        found = self._found.get("predict_interval")
        ends = () if found is None else zip(("low", "high"), found.T, strict=True)
        return {f"{name}_{end}": self._column(values) for end, values in ends}

    def scores(self) -> dict[str, pa.Array]:
        """Return a column of scores for each class that has one."""
        classes, found = self._head.classes, self._found.get(self._kind or "")
        if found is None or classes is None:
            return {}
        word = "probability" if self._kind == "predict_proba" else "score"
        names = classes[-found.shape[1] :].tolist()
        return {f"{word}_{name}": self._column(values) for name, values in zip(names, found.T, strict=True)}

    def rejection(self) -> dict[str, pa.Array]:
        """Return which rows are rejected, and how much speaks against deciding, where the head says so."""
        return {name: self._column(self._found[name]) for name in REJECTION if name in self._found}

    def _column(self, values: npt.NDArray[Any]) -> pa.Array:
        return pa.array(values, mask=~self._filled)
