"""`Head`: a fitted estimator and the backbone of its vectors."""

from __future__ import annotations

import os
import statistics
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.missing import is_missing
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import BackboneSpec, random_notes
from embedpipe.embedding.options import ComputeOptions
from embedpipe.errors import UsageError
from embedpipe.heads.columns.table_columns import TableColumn
from embedpipe.heads.doubt import least_confident_first as sort_by_doubt
from embedpipe.heads.head_view import head_html
from embedpipe.heads.mistakes import Mistakes, find_mistakes
from embedpipe.heads.options import Task
from embedpipe.heads.predicting.fitted_rows import FittedRows, add_fitted_on
from embedpipe.heads.predicting.predictions import Predictions
from embedpipe.heads.predicting.score import score_values
from embedpipe.heads.predicting.sources import Predicted, predict_items, predict_rows, predict_vectors
from embedpipe.heads.predicting.table import prediction_table
from embedpipe.heads.predicting.view import mark_predictions
from embedpipe.heads.saving import read_head, write_head
from embedpipe.heads.scoring import FitReport
from embedpipe.sources.options import SourceOptions
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from torch import nn

    from embedpipe._utils.parameters import PredictParameters

OPTIONS = (SourceOptions, ReloadOptions, ComputeOptions)


@dataclass(repr=False)
class Head:
    """A fitted estimator with the backbone whose vectors it takes, and how it was measured.

    `embedpipe.fit` makes one, `embedpipe.load_head` reads one from disk. A notebook shows its metrics beside those of
    the baseline.

    Attributes
    ----------
    name : str
        Such as ``logreg``, or the class name of a user's estimator.
    estimator : scikit-learn estimator
        Takes vectors as the store holds them, float32 (n_samples, dim); scaling is part of it.
    spec : BackboneSpec
        The backbone of the vectors, with the layers that are used, in the order in which they are joined.
    label : str
        The store's column that was learned.
    store, store_id, store_version : str, str, int
        Path, table id and version of the store that it was fitted on.
    report : FitReport
        Metrics and how they were measured.
    label_separator : str
        Separator between the labels of an item, for the multilabel task.
    columns : tuple of TableColumn
        The columns beside the vectors that it learned from (``features`` of `embedpipe.fit`). The rows that the
        estimator takes are vectors followed by these, as numbers.
    held_out : pyarrow.Table or None
        The predictions of the rows that measured the head, each by a fit without that row: ``id``, ``actual``,
        ``predicted``, and for classes ``confidence``, ``second`` and ``margin``, as in `mistakes`. It is not saved:
        None in a head from disk.

    Examples
    --------
    >>> embedpipe.load_head("photos.head")  # doctest: +ELLIPSIS
    Head(name='logreg', task='classification', label='label', layer='features', ..., accuracy=1.000)
    """

    name: str
    estimator: Any
    spec: BackboneSpec
    label: str
    store: str
    store_id: str
    store_version: int
    report: FitReport
    label_separator: str = ";"
    columns: tuple[TableColumn, ...] = ()
    held_out: pa.Table | None = field(default=None, compare=False)

    @property
    def task(self) -> Task:
        """``classification``, ``regression`` or ``multilabel``."""
        return self.report.task

    @property
    def layers(self) -> dict[str, int]:
        """Name of each layer whose vectors are joined end to end, in order, and the length of its vectors."""
        return {layer.name: layer.dim for layer in self.spec.layers}

    @property
    def classes(self) -> npt.NDArray[Any] | None:
        """The classes or labels in the order of the scores, (n_classes,); None for regression."""
        return None if self.task == "regression" else np.asarray(self.estimator.classes_)

    def __repr__(self) -> str:
        facts = {"name": self.name, "task": self.task, "label": self.label, "layer": "+".join(self.layers)}
        facts |= {"backbone": f"{self.spec.provider}/{self.spec.name}"}
        metrics = next(iter(self.report.metrics.items()), None)
        score = "" if metrics is None else f", {metrics[0]}={statistics.fmean(metrics[1]):.3f}"
        return f"Head({', '.join(f'{name}={value!r}' for name, value in facts.items())}{score})"

    def _repr_html_(self) -> str:
        return head_html(self)

    def is_of(self, store: FeatureStore) -> bool:
        """Return whether the head was fitted on this version of this store."""
        return (self.store_id, self.store_version) == (store.table_id, store.version)

    def save(self, to: str | Path) -> Path:
        """Save the head into a folder, which `embedpipe.load_head` reads; an existing head is replaced.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        UsageError
            If the folder exists and is not a head.
        HeadError
            If skops cannot store the estimator.
        """
        saved = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "held_out"}
        return write_head(to, classes=self.classes, **saved)

    def to_sklearn(self) -> Pipeline:
        """Return a fitted pipeline of scikit-learn's own classes with the same predictions, which needs no embedpipe.

        Returns
        -------
        sklearn.pipeline.Pipeline
            Takes vectors as the store holds them, float (n_samples, dim), with the layers joined in the order of
            `layers`, followed by the columns. ``predict`` gives the head's predictions, of several labels a table
            (n_samples, n_labels) of 0 and 1. ``predict_proba``, or ``decision_function`` of heads without
            probabilities, agrees within 1e-6; columns are in the order of `classes`. Of neighbours that are equally far
            others may vote. The threshold of rejection and the intervals of numbers stay behind.

        Raises
        ------
        UsageError
            If scikit-learn has no equal, as for approximate neighbours.

        Examples
        --------
        >>> model = embedpipe.load_head("photos.head").to_sklearn()
        >>> model.predict(embedpipe.FeatureStore("photos.features").to_numpy())[:2].tolist()
        ['cat', 'cat']
        """
        from embedpipe.heads.conversion.plain_sklearn import plain_pipeline

        return plain_pipeline(self.estimator, self.name)

    def to_torch(self) -> nn.Sequential:
        """Return a module of torch from vectors to logits.

        Returns
        -------
        torch.nn.Sequential
            In eval mode, without gradients. Takes float32 (n, dim) as `to_sklearn` does, and returns float32. Of
            classes, logits (n, n_classes) in the order of `classes`: their softmax is the probabilities, of a head that
            gives any. Of several labels, logits (n, n_labels), whose sigmoid is the probabilities. Of numbers (n,).
            Sums are in float32: probabilities agree within 1e-4.

        Raises
        ------
        UsageError
            If the head is neither linear nor exact nearest neighbours, or has columns.

        Examples
        --------
        >>> import torch
        >>> module = embedpipe.load_head("photos.head").to_torch()
        >>> module(torch.zeros(1, 1280)).shape
        torch.Size([1, 2])
        """
        from embedpipe.heads.conversion.torch_module import to_module

        return to_module(self.estimator, self.name)

    def mistakes(self) -> Mistakes:
        """Return the held-out rows that the head predicts wrongly, with the texts and locations of the items.

        Raises
        ------
        UsageError
            If the head was read from disk, or was not measured.
        StoreError
            If the store of the rows cannot be read any more.
        """
        facts = {"head": self.name, "label": self.label, "protocol": self.report.protocol}
        return find_mistakes(self.held_out, self.store, self.store_version, task=self.task, **facts)

    @takes_options(*OPTIONS)
    def predict(
        self,
        source: Any,
        *,
        least_confident_first: bool = False,
        progress: bool | None = None,
        **options: Unpack[PredictParameters],
    ) -> pa.Table:
        """Predict every item of a source, or every row of a store.

        The backbone and preprocessing of the head's vectors are loaded from its spec. An item that fails has a row
        with an ``error`` and no prediction. Vectors are not kept: for a large or repeated job, embed into a store,
        which resumes, and predict from the store.

        Parameters
        ----------
        source : str, path-like, FeatureStore or in-memory data
            Images or texts, as the head was fitted on, in any form that `embedpipe.embed` takes; a list of ``str`` is
            a list of texts for a head of texts. Or a feature store of the same backbone. A head of imported vectors
            takes vectors, as `embedpipe.import_vectors` does; without ids they are numbered. For a head with columns
            it is a table or a store that has them.
        least_confident_first : bool, default False
            Sort by ``confidence``, or by ``margin`` of a head without probabilities, the items that a person should
            look at first; numbers with intervals by the width of the interval. By default in the order of the source.
        progress : bool, optional
            Show progress; by default in a notebook and on a terminal (standard error).

        Returns
        -------
        pyarrow.Table
            One row per item; a notebook shows the first ones as pictures or texts. The columns:

            - ``id``, ``uri``
            - the prediction, in a column with the name of the label; several labels are joined by the separator
            - ``confidence``: the probability of the predicted class; ``second``: the most probable other class, and
              ``margin``: the difference of the two probabilities, or of the scores of a head without probabilities
            - ``text``: the text, or its beginning as a store keeps it, of texts
            - ``<label>_low``, ``<label>_high``: the interval, of a head with intervals
            - ``probability_<class>`` for each class, or ``score_<class>`` from an estimator without probabilities
              (one score, of the second class, for two classes)
            - ``rejected``, ``reject_score``: of a head that rejects; a rejected row keeps its prediction
            - ``actual``: the true label, if the source has labels (of a store: the column that was learned)
            - ``fitted_on``, of the store that the head was fitted on, or if other items have the content of its rows:
              whether the head was fitted on this very item. Its prediction then says nothing about new items:
              ``held_out`` and `mistakes` are honest about such rows
            - ``error``: why the item failed

        Raises
        ------
        SpecMismatchError
            If the store, or the backbone that loads, is not the one of the head's vectors.
        UsageError
            If the source lacks a column of the head.
        EmbedpipeError
            If the source cannot be listed, or the backbone cannot be loaded.

        Examples
        --------
        >>> table = embedpipe.load_head("photos.head").predict("new_photos")
        >>> table.column_names
        ['id', 'uri', 'label', 'confidence', 'second', 'margin', 'probability_cat', 'probability_coffee', 'error']
        >>> table.filter(table["error"].is_valid()).num_rows
        0
        """
        source_options, reload_options, compute = build_options(OPTIONS, options)
        show = Progress(progress)
        show.say_all(random_notes([self.spec]))
        if isinstance(source, str | os.PathLike) and FeatureStore.exists(os.fspath(source)):
            source = FeatureStore(os.fspath(source))
        if isinstance(source, FeatureStore):
            source_options.refuse_for_store(source.path)
            table = self._predict_store(source, show)
            return sort_by_doubt(table) if least_confident_first else table
        if self.spec.is_imported:
            hashed = self._fitted_rows.own_store() is not None
            done = predict_vectors(self.spec, self.columns, source, source_options, self._predictions, hashed)
        else:
            given = (source_options, reload_options, compute, show)
            done = predict_items(self.spec, self.columns, source, *given, self._predictions)
        show.say_all(done.notes)
        # The source's label is the head's label if both are named "label", or if the user names a column.
        same_label = self.label == "label" or source_options.label is not None
        done = done if same_label else done._replace(rows=done.rows.drop_columns("label"))
        table = self._table(done, "label" if same_label else None)
        return sort_by_doubt(table) if least_confident_first else table

    def score(self, X: Any, y: Any = None) -> float:
        """Return the accuracy of a classifier, or R2, as ``score`` of scikit-learn's estimators.

        Parameters
        ----------
        X : float array (n_samples, dim), FeatureStore, or a source
            Vectors as the store holds them; or a store or source as `predict` takes them. Items that fail are left out.
        y : sequence (n_samples,), optional
            The true labels. By default those of the store or source; rows without one are left out.

        Returns
        -------
        float
            Share of items whose class, or whose whole set of labels, is right; R2 for regression.

        Raises
        ------
        UsageError
            There are no labels, or another number of them than of items.
        EmbedpipeError
            As `predict`.

        Examples
        --------
        >>> head = embedpipe.load_head("photos.head")
        >>> head.score("new_photos", ["cat", "coffee"])
        1.0
        """
        if isinstance(X, np.ndarray) and X.dtype.kind == "f" and X.ndim == 2:
            predictions = self._predictions(len(X))
            predictions.add(np.arange(len(X)), X)
            predicted = predictions.labels().to_pylist()
        else:
            table = self.predict(X)
            if "fitted_on" in table.column_names and (count := pc.sum(table["fitted_on"]).as_py()):
                reason = f"the head was fitted on {count:,} of these {len(table):,} items: see head.report"
                warnings.warn(f"this score is too high, as {reason}", stacklevel=2)
            predicted = table.column(2).to_pylist()
            if y is None and "actual" in table.column_names:
                y = table.column("actual").to_pylist()
        if y is None:
            raise UsageError(f"score needs true labels, and there is no {self.label!r}: give y")
        if len(y) != len(predicted):
            raise UsageError(f"y must have one value for each item, got {len(y):,} for {len(predicted):,} items")
        known = [pair for pair in zip(y, predicted, strict=True) if not any(map(is_missing, pair))]
        if not known:
            raise UsageError("score needs at least one item with a label and a prediction, got none")
        return score_values(self.task, known, self.label_separator)

    @property
    def _fitted_rows(self) -> FittedRows:
        facts = self.store, self.store_id, self.store_version, self.label, self.report.measured_on
        return FittedRows(self.report.rows, *facts)

    def _predictions(self, count: int) -> Predictions:
        return Predictions(self.estimator, self.task, count, self.label_separator)

    def _predict_store(self, store: FeatureStore, show: Progress) -> pa.Table:
        self.spec.require(
            store.spec.only(*self.layers),
            f"the head was fitted on vectors of another backbone spec than those of {store.path!r}",
            "in the head",
            "in the store",
            "Fit a head on this store, or embed the items with the head's backbone.",
        )
        done = predict_rows(self.spec, self.columns, store, self.label, self._predictions)
        show.say_all(done.notes)
        return self._table(done, self.label, store)

    def _table(self, done: Predicted, actual: str | None, store: FeatureStore | None = None) -> pa.Table:
        table, name = prediction_table(done, self.label, actual)
        table = add_fitted_on(table, self._fitted_rows.among(done.rows, store))
        return mark_predictions(table, self.name, name)


def load_head(path: str | Path, *, trust: bool = False) -> Head:
    """Read a head that `embedpipe.fit` saved.

    Parameters
    ----------
    path : str or path-like
        The head's folder.
    trust : bool
        Also make types that are not known to be harmless, such as an estimator of your own. They can run code: trust
        only a head that you made yourself.

    Returns
    -------
    Head

    Raises
    ------
    HeadError
        If there is no head at ``path``, it is damaged or was changed, or it needs types that are not trusted.

    Examples
    --------
    >>> head = embedpipe.load_head("photos.head")
    >>> head.predict("new_photos")["label"].to_pylist()
    ['cat', 'coffee']
    """
    return Head(**read_head(path, trust=trust))
