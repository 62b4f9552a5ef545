"""`shift`: are the rows of one store like those of another, and what accuracy to expect on them?"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.cleaning.comparable import require_comparable
from embedpipe.cleaning.held_out import held_out_probabilities
from embedpipe.cleaning.options import ShiftOptions
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.options import FitOptions
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.training.training_data import labels_of
from embedpipe.heads.training.vectors import read_finite
from embedpipe.neighbours.exact import normalised
from embedpipe.report.drawing.wording import counted
from embedpipe.sources.listing import split_name
from embedpipe.splits.make import make_splits
from embedpipe.statistics.percentages import percent
from embedpipe.statistics.two_sample import mmd_test
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import LEFT_OUT, used_rows
from embedpipe.store.schema import require_column

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ShiftParameters

Vectors = npt.NDArray[np.float32]
#: Rows of each side that the test compares, and of labelled rows that heads are fitted on.
TESTED_ROWS, FITTED_ROWS = 2000, 20_000
FOLDS = 5


@dataclass(frozen=True, eq=False, repr=False)
class Shift:
    """How the rows of one side differ from those of another; what `embedpipe.shift` returns.

    Attributes
    ----------
    shifted : bool
        Whether the p-value is at most ``alpha``.
    p_value : float
        Of no difference, by the permutation test of `embedpipe.statistics.mmd_test`.
    auc : float
        Area under the ROC curve of a linear classifier that tells the sides apart, on rows that it was not fitted on:
        the size of the effect; 0.5 if it cannot, 1 if always.
    rows : tuple of (int, int)
    moved : pyarrow.Table
        ``id`` of the new rows and ``new``, the probability by which the classifier takes a row for a new one; the most
        unlike first.
    classes : pyarrow.Table or None
        ``label``, the ``old`` share, and the ``new`` share of rows that a head predicts to be of it; None without
        labels.
    old_accuracy, expected_accuracy : float or None
        Accuracy of a head on held-out old rows, and the one to expect on the new ones, by average thresholded
        confidence (Garg et al., ICLR 2022); None without labels.
    new_accuracy : float or None
        The true one, where the new rows have labels.
    notes : list of str
    seconds : float

    Examples
    --------
    >>> shift = embedpipe.shift("photos.features", "photos.features")
    >>> shift.shifted, round(shift.p_value, 1)
    (False, 1.0)
    """

    shifted: bool
    p_value: float
    auc: float
    rows: tuple[int, int]
    moved: pa.Table
    classes: pa.Table | None
    old_accuracy: float | None
    expected_accuracy: float | None
    new_accuracy: float | None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts; of ``moved`` the first 100 rows."""
        plain = dict(vars(self))
        plain["moved"] = self.moved.slice(0, 100).to_pylist()
        plain["classes"] = None if self.classes is None else self.classes.to_pylist()
        return plain

    def __repr__(self) -> str:
        found = "shifted" if self.shifted else "no shift"
        return f"Shift({found}, p={self.p_value:.3f}, auc={self.auc:.3f}, rows={self.rows})"

    def _repr_html_(self) -> str:
        expected = "" if self.expected_accuracy is None else percent(self.expected_accuracy)
        return html_table(
            "Shift" if self.shifted else "No shift",
            {"p-value": f"{self.p_value:.3f}", "told apart (AUC)": f"{self.auc:.3f}", "expected accuracy": expected},
        )


@takes_options(ShiftOptions)
def shift(
    old: FeatureStore | str | Path,
    new: FeatureStore | str | Path | None = None,
    *,
    progress: bool | None = None,
    **options: Unpack[ShiftParameters],
) -> Shift:
    """Test whether new rows are like old ones, and forecast the accuracy of a head on them.

    Parameters
    ----------
    old : FeatureStore or path
    new : FeatureStore or path, optional
        A store of the same backbone. Without it, two splits of ``old`` are compared.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Shift

    Raises
    ------
    UsageError
        If an option is wrong, the stores have other backbones, or a side has fewer than two rows.

    Notes
    -----
    At most 2,000 rows of each side are drawn for the test; the number of rows decides how small a difference it finds.
    The expected accuracy assumes that a head is as well calibrated on the new rows as on the old ones.

    Examples
    --------
    >>> shift = embedpipe.shift("photos.features", "photos.features")
    >>> shift.shifted, shift.rows[0] == shift.rows[1]
    (False, True)
    """
    start = time.perf_counter()
    (chosen,) = build_options((ShiftOptions,), options)
    show = Progress(progress)
    first = old if isinstance(old, FeatureStore) else FeatureStore(old)
    second = first if new is None else new if isinstance(new, FeatureStore) else FeatureStore(new)
    layers = first.select_layers(chosen.layer)
    require_comparable(first, second, layers)
    sides, notes = [], list[str]()
    for store, name in zip((first, second), chosen.splits, strict=True):
        rows, excluded = _columns(store, chosen.label, name if new is None else None)
        notes += [note for note in excluded if note not in notes]
        if rows.num_rows < 2:
            where = f"the split {name!r} of {store.path!r}" if new is None else repr(store.path)
            raise UsageError(f"{where} must have at least 2 rows, got {rows.num_rows}")
        with show.step("reading vectors"):
            sides.append((rows, read_finite(store, layers, rows["id"].combine_chunks())))
    (old_rows, X), (new_rows, Y) = sides
    rng = np.random.default_rng(chosen.seed)
    drawn_x, drawn_y = (np.sort(rng.permutation(len(V))[:TESTED_ROWS]) for V in (X, Y))
    centre = np.concatenate([X[drawn_x], Y[drawn_y]]).mean(axis=0, dtype=np.float64).astype(np.float32)
    A, B = normalised(X[drawn_x] - centre), normalised(Y[drawn_y] - centre)
    with show.step("testing"):
        _, p_value = mmd_test(A, B, chosen.permutations, chosen.seed)
        auc, newness = _tell_apart(X[drawn_x], Y, drawn_y, chosen.seed)
    order = np.argsort(-newness, kind="stable")
    moved = pa.table({"id": new_rows["id"].take(pa.array(order)), "new": newness[order]})
    with show.step("forecasting the accuracy"):
        classes, accuracies, more = _forecast_accuracy(old_rows, X, new_rows, Y, chosen, rng)
    return Shift(
        shifted=p_value <= chosen.alpha,
        p_value=p_value,
        auc=auc,
        rows=(len(X), len(Y)),
        moved=moved,
        classes=classes,
        old_accuracy=accuracies[0],
        expected_accuracy=accuracies[1],
        new_accuracy=accuracies[2],
        notes=notes + more,
        seconds=time.perf_counter() - start,
    )


def _columns(store: FeatureStore, label: str, split: str | None) -> tuple[pa.Table, list[str]]:
    if label != "label":
        require_column(label, store.data_columns, store.path, "label")
    names = [name for name in ("id", label, "split") if name == "id" or name in store.data_columns]
    rows, excluded = used_rows(store.table, list(dict.fromkeys(names)))
    notes = [f"left out of {store.path!r}: {counted(excluded, 'row')} {LEFT_OUT}"] if excluded else []
    if split is None:
        return rows, notes
    if "split" not in rows.column_names:
        raise UsageError(f"{store.path!r} has no column split: name another store to compare with")
    values = [split_name(value) for value in rows["split"].to_pylist()]
    if split_name(split) not in values:
        known = ", ".join(sorted({repr(value) for value in values if value})) or "none"
        raise UsageError(f"{option('splits')} must be splits of {store.path!r} ({known}), got {split!r}")
    return rows.filter(pa.array([value == split_name(split) for value in values])), notes


def _tell_apart(A: Vectors, Y: Vectors, drawn: npt.NDArray[np.int64], seed: int) -> tuple[float, npt.NDArray[Any]]:
    """Return the AUC of linear discriminants on rows of other folds, and the probability of each new row to be new."""
    X = np.concatenate([A, Y[drawn]])
    side = np.repeat([0, 1], [len(A), len(drawn)])
    folds = min(FOLDS, len(A), len(drawn))
    held_out = np.empty(len(X))
    _, whole = make_estimator("lda", "classification", len(X))
    newness = fit_on(whole, X, side).predict_proba(Y)[:, 1]
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, side):
        _, head = make_estimator("lda", "classification", len(train))
        held_out[test] = fit_on(head, X[train], side[train]).predict_proba(X[test])[:, 1]
    newness[drawn] = held_out[len(A) :]  # these rows were fitted on
    return float(roc_auc_score(side, held_out)), newness


def _forecast_accuracy(
    old_rows: pa.Table,
    X: Vectors,
    new_rows: pa.Table,
    Y: Vectors,
    options: ShiftOptions,
    rng: np.random.Generator,
) -> tuple[pa.Table | None, tuple[float | None, float | None, float | None], list[str]]:
    """Return the shares of classes, and the accuracies: on old rows, expected, and true on the new rows."""
    nothing = None, (None, None, None)
    if options.label not in old_rows.column_names:
        return *nothing, [f"no accuracy is forecast: the old rows have no column {options.label!r}"]
    labelled = np.flatnonzero(old_rows[options.label].is_valid().to_numpy(zero_copy_only=False))
    labelled = np.sort(rng.permutation(labelled)[:FITTED_ROWS])
    if not np.ptp(X, axis=0).any():
        return *nothing, ["no accuracy is forecast: the vectors of the old rows are all equal"]
    try:
        y, task, _ = labels_of(old_rows.take(pa.array(labelled)), FitOptions(label=options.label))
        if task != "classification":
            return *nothing, [f"no accuracy is forecast: {options.label!r} holds numbers"]
        splits = make_splits(
            [str(row) for row in labelled], y, task="classification", near_duplicates=None, folds=FOLDS, repeats=1
        )
    except TrainingDataError as error:
        return *nothing, [f"no accuracy is forecast: {error}"]
    held_out = held_out_probabilities(X, labelled, y, splits, "logreg")
    measured = np.isfinite(held_out).all(axis=1)
    confidence = held_out[measured].max(axis=1)
    old_accuracy = float((np.unique(y)[held_out[measured].argmax(axis=1)] == y[measured]).mean())
    _, head = make_estimator("logreg", "classification", len(y))
    fitted = fit_on(head, X[labelled], y)
    probabilities = fitted.predict_proba(Y)
    predicted = fitted.classes_[probabilities.argmax(axis=1)]
    # As large a share of the old rows has a confidence below the threshold as are predicted wrongly.
    threshold = np.quantile(confidence, 1 - old_accuracy)
    expected = float((probabilities.max(axis=1) >= threshold).mean())
    names = fitted.classes_
    shares = {
        "label": [str(name) for name in names.tolist()],
        "old": [float((y == name).mean()) for name in names],
        "new": [float((predicted == name).mean()) for name in names],
    }
    true = None
    if options.label in new_rows.column_names:
        known = new_rows[options.label].is_valid().to_numpy(zero_copy_only=False)
        actual = np.array([str(value) for value in new_rows[options.label].to_pylist()])
        if known.any():
            true = float((np.array([str(value) for value in predicted.tolist()])[known] == actual[known]).mean())
    return pa.table(shares), (old_accuracy, expected, true), [*splits.notes]
