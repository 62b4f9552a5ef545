"""`shift`: are the rows of one store like those of another, and what accuracy to expect on them?"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.cleaning.comparable import require_comparable
from embedpipe.cleaning.options import ShiftOptions
from embedpipe.cleaning.shifts.forecasting import Forecaster
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.estimators.wrappers.base import fit_on
from embedpipe.heads.options import FitOptions
from embedpipe.heads.registry import make_estimator
from embedpipe.heads.training.training_data import labels_of
from embedpipe.heads.training.vectors import read_finite
from embedpipe.neighbours.exact import normalised
from embedpipe.report.tables import is_page, write_table
from embedpipe.sources.listing import split_name
from embedpipe.statistics.percentages import percent
from embedpipe.statistics.two_sample import mmd_test
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import left_out_notes
from embedpipe.store.editing.labelling import as_text
from embedpipe.store.opening import known_columns, open_store
from embedpipe.store.scan import has_label

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ShiftParameters

Vectors = npt.NDArray[np.float32]
#: Rows of each side that the test compares, and of labelled rows that heads are fitted on.
TESTED_ROWS, FITTED_ROWS = 2000, 20_000
FOLDS = 5
#: Least rows of a side: with fewer, a fold leaves one of each, which have no covariance.
LEAST_ROWS = 3
#: AUC of a classifier that cannot tell the sides apart. On few or equal rows, folds give less: a row that one fold has
#: learned as an old one is then predicted to be old where it is new.
CHANCE = 0.5
#: Columns of new rows that the table of moved rows has beside the id.
SHOWN_COLUMNS = ("text", "uri")


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
        the size of the effect; 0.5 if it cannot, 1 if always. What is below 0.5 is no shift, and counts as 0.5.
    rows : tuple of (int, int)
    moved : pyarrow.Table
        ``id`` of the new rows and ``new``, the probability by which the classifier takes a row for a new one; the most
        unlike first. Label, ``text`` and ``uri`` follow, as far as the store has them.
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

    def save(self, to: str | Path) -> list[str]:
        """Write a page, or ``moved`` as a table; return remarks for people.

        The name ends in ``.html``, or in a suffix of `embedpipe.report.write_table`. Raises UsageError otherwise.
        """
        if is_page(to):
            from embedpipe.cleaning.shifts.page import write_shift_page

            write_shift_page(vars(self), to)
            return []
        return write_table(self.moved, to)

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
        A store of the same backbone. Without it, two splits of ``old`` are compared; with it, all rows of ``old``, or
        those of one split.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Shift

    Raises
    ------
    UsageError
        If an option is wrong, the stores have other backbones, or a side has fewer than three rows.

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
    first = open_store(old)
    second = first if new is None else open_store(new)
    layers = first.select_layers(chosen.layer)
    require_comparable(first, second, layers)
    sides, notes = [], list[str]()
    for store, name in zip((first, second), _splits(chosen, new is None), strict=True):
        rows, excluded = _columns(store, chosen.label, name)
        notes += [note for note in excluded if note not in notes]
        if rows.num_rows < LEAST_ROWS:
            where = f"the split {name!r} of {store.path!r}" if name else repr(store.path)
            others = "".join(f"; {note}" for note in excluded)
            raise UsageError(f"{where} must have at least {LEAST_ROWS} rows, got {rows.num_rows}{others}")
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
    at = pa.array(order)
    moved = pa.table({"id": new_rows["id"].take(at), "new": newness[order]})
    for name in (chosen.label, *SHOWN_COLUMNS):
        if name in new_rows.column_names and name not in moved.column_names:
            moved = moved.append_column(name, new_rows[name].take(at))
    with show.step("forecasting the accuracy"):
        forecast = _forecast_accuracy(old_rows, X, new_rows, Y, chosen, rng)
    if auc < CHANCE:
        notes.append(f"the sides are told apart no better than by chance (an AUC of {auc:.3f} counts as {CHANCE})")
    return Shift(
        shifted=p_value <= chosen.alpha,
        p_value=p_value,
        auc=max(auc, CHANCE),
        rows=(len(X), len(Y)),
        moved=moved,
        classes=forecast.classes,
        old_accuracy=forecast.old,
        expected_accuracy=forecast.expected,
        new_accuracy=forecast.new,
        notes=notes + forecast.notes,
        seconds=time.perf_counter() - start,
    )


def _splits(options: ShiftOptions, in_one_store: bool) -> tuple[str | None, str | None]:
    """Return the splits of the old and of the new rows; None for all rows."""
    given, shown = options.splits, f"got {len(options.splits)}: {', '.join(options.splits)}"
    if in_one_store and given and len(given) != 2:
        raise UsageError(f"{option('splits')} must be two splits, {shown}")
    if not in_one_store and len(given) > 1:
        raise UsageError(f"{option('splits')} must be one split, that of the old rows, beside another store, {shown}")
    if in_one_store:
        return (given[0], given[1]) if given else ("train", "test")
    return (given[0] if given else None), None


def _columns(store: FeatureStore, label: str, split: str | None) -> tuple[pa.Table, list[str]]:
    rows, excluded = known_columns(store, ["split", *SHOWN_COLUMNS], label=label)
    notes = left_out_notes(excluded, store.path)
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


@dataclass
class _Forecast:
    """Shares of classes, and accuracies; None as far as they are not known."""

    classes: pa.Table | None = None
    old: float | None = None
    expected: float | None = None
    new: float | None = None
    notes: list[str] = field(default_factory=list)


def _forecast_accuracy(
    old_rows: pa.Table, X: Vectors, new_rows: pa.Table, Y: Vectors, options: ShiftOptions, rng: np.random.Generator
) -> _Forecast:
    """Forecast the accuracy on the new rows, and measure it where they have labels."""
    if options.label not in old_rows.column_names:
        return _Forecast(notes=[f"no accuracy is forecast: the old rows have no column {options.label!r}"])
    labelled = np.flatnonzero(has_label(old_rows[options.label]))
    labelled = np.sort(rng.permutation(labelled)[:FITTED_ROWS])
    if not np.ptp(X, axis=0).any():
        return _Forecast(notes=["no accuracy is forecast: the vectors of the old rows are all equal"])
    try:
        y, task, _ = labels_of(old_rows.take(pa.array(labelled)), FitOptions(label=options.label))
        if task != "classification":
            return _Forecast(notes=[f"no accuracy is forecast: {options.label!r} holds numbers"])
        forecaster = Forecaster(X[labelled], y, options.seed)
    except TrainingDataError as error:
        return _Forecast(notes=[f"no accuracy is forecast: {error}"])
    expected, predicted = forecaster.expect(Y)
    names = forecaster.classes
    shares = {
        "label": as_text(pa.array(names)),
        "old": [float((y == name).mean()) for name in names],
        "new": [float((predicted == name).mean()) for name in names],
    }
    true = None
    if options.label in new_rows.column_names:
        # By their texts: one store may hold the labels as 1, the other as 1.0.
        column = new_rows[options.label].combine_chunks()
        actual = pc.if_else(pa.array(has_label(column)), as_text(column), None)
        true = pc.mean(pc.equal(actual, as_text(pa.array(predicted))).cast(pa.float64())).as_py()
    return _Forecast(pa.table(shares), forecaster.accuracy, expected, true, forecaster.notes)
