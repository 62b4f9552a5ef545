"""`next`: which items to label next, and how much that gains over labelling at random."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.cleaning.choosing.choice import choose_rows, spread_out
from embedpipe.cleaning.choosing.simulation import DRAWS, LEAST_SIMULATED, ROUNDS, simulate
from embedpipe.cleaning.options import NextOptions
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.heads.head import Head, load_head
from embedpipe.heads.options import FitOptions
from embedpipe.heads.training.training_data import labels_of
from embedpipe.heads.training.vectors import centred_directions, read_finite
from embedpipe.report.drawing.wording import counted
from embedpipe.statistics import Estimate
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import left_out_notes
from embedpipe.store.opening import known_columns, open_store
from embedpipe.store.scan import has_label

if TYPE_CHECKING:
    from embedpipe._utils.parameters import NextParameters

#: Rows without labels that are clustered: a sample of more.
MOST_ROWS = 20_000


@dataclass(frozen=True, eq=False, repr=False)
class NextItems:
    """The items to label next; what `embedpipe.next` returns.

    Attributes
    ----------
    table : pyarrow.Table
        ``id`` in the order of labelling, ``reason`` (``typical`` or ``doubtful``), ``margin`` (of a head's two best
        classes; null of typical items), and ``text`` and ``uri``, if the store has them.
    labelled, unlabelled : int
        Rows of the store with and without a label.
    gain : Estimate or None
        Accuracy with items chosen so less accuracy with random ones, as a fraction with its 95 % interval, simulated on
        the labelled rows; None if they are too few.
    simulated : dict
        Number of labels -> mean accuracies (chosen, random) of the simulation.
    notes : list of str
    seconds : float
    """

    table: pa.Table
    labelled: int
    unlabelled: int
    gain: Estimate | None
    simulated: dict[int, tuple[float, float]]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        gain = None if self.gain is None else self.gain.value
        return {**vars(self), "gain": gain, "table": None, "items": self.table.to_pylist()}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"NextItems({counted(len(self), 'item')} of {self.unlabelled:,} without a label)"

    def _repr_html_(self) -> str:
        rows = self.table.slice(0, 20).to_pylist()
        return html_table(repr(self), [(row["id"], row["reason"]) for row in rows])


@takes_options(NextOptions)
def next(
    store: FeatureStore | str | Path,
    *,
    head: Head | str | Path | None = None,
    progress: bool | None = None,
    **options: Unpack[NextParameters],
) -> NextItems:
    """Choose the rows without a label that are worth labelling next.

    While labels are few, the most typical rows of different kinds; then rows that a head is unsure of, spread out. On
    the labelled rows of the store this is compared with random choices, if they are enough.

    Parameters
    ----------
    store : FeatureStore or path
    head : Head or path, optional
        A classifier whose doubts count, of vectors of the same backbone. By default one is fitted on the labels of the
        store once they are enough.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    NextItems

    Raises
    ------
    UsageError
        If an option is wrong, all rows have a label, or the head does not predict classes.
    SpecMismatchError
        If the head is of vectors of another backbone.
    TrainingDataError
        If the labels are not classes.

    Notes
    -----
    `embedpipe.cleaning.choosing.choice` names the methods. Of more than 20,000 rows without a label a random sample is
    considered.

    Examples
    --------
    >>> embedpipe.next("photos.features", count=5)  # doctest: +SKIP
    NextItems(5 items of 812 without a label)
    """
    start = time.perf_counter()
    (chosen,) = build_options((NextOptions,), options)
    opened = open_store(store)
    rows, excluded = known_columns(opened, ["text", "uri"], label=chosen.label)
    is_labelled = np.zeros(rows.num_rows, bool)
    if chosen.label in rows.column_names:
        is_labelled = has_label(rows[chosen.label])
    y = np.full(rows.num_rows, -1, np.int64)
    if is_labelled.any():
        values, task, _ = labels_of(rows.filter(pa.array(is_labelled)), FitOptions(label=chosen.label))
        if task != "classification":
            raise TrainingDataError(f"labels must be classes, and {chosen.label!r} holds numbers")
        y[is_labelled] = np.unique(values, return_inverse=True)[1]
    pool, labelled = np.flatnonzero(~is_labelled), np.flatnonzero(is_labelled)
    notes = left_out_notes(excluded)
    if not len(pool):
        others = f" ({notes[0]})" if notes else ""
        raise UsageError(
            f"some rows must have no {chosen.label}, and all {rows.num_rows:,} of {opened.path!r} have one{others}: "
            "embed more"
        )
    rng = np.random.default_rng(chosen.seed)
    if len(pool) > MOST_ROWS:
        notes.append(f"chosen among {MOST_ROWS:,} of {len(pool):,} rows without a {chosen.label}, drawn at random")
    considered = np.sort(rng.permutation(pool)[:MOST_ROWS])
    known = np.sort(rng.permutation(labelled)[:MOST_ROWS])
    show = Progress(progress)
    with show.step("reading vectors"):
        X = read_finite(opened, opened.select_layers(chosen.layer), rows["id"].combine_chunks())
        Z, _ = centred_directions(X)
    with show.step("choosing"):
        if head is None:
            picked, margins = choose_rows(Z, y, considered, known, chosen.count, chosen.seed)
        else:
            doubts = _margins(head, opened, rows["id"])[considered]
            predicted = ~np.isnan(doubts)
            if not predicted.any():
                raise UsageError(f"none of the {len(doubts):,} rows could be predicted: embed them again")
            if not predicted.all():
                notes.append(f"rows that failed when they were embedded again are left out: {(~predicted).sum():,}")
            picked, margins = spread_out(Z, considered[predicted], doubts[predicted], chosen.count, chosen.seed)
    gain: Estimate | None = None
    simulated: dict[int, tuple[float, float]] = {}
    if head is not None:
        notes += ["not compared with random choices: the head may have learned the labelled rows"] * bool(len(known))
    elif not chosen.skip_simulation and len(known) >= LEAST_SIMULATED:
        with show.step("simulating", DRAWS * ROUNDS, "rounds") as advance:
            gain, simulated = simulate(Z[known], y[known], chosen.seed, advance)
    elif not chosen.skip_simulation:
        notes.append(
            f"not compared with random choices: {LEAST_SIMULATED} labelled rows are needed, and there are "
            f"{len(known):,}"
        )
    at = pa.array(picked)
    doubtful = np.isfinite(margins)
    columns: dict[str, Any] = {
        "id": rows["id"].take(at),
        "reason": np.where(doubtful, "doubtful", "typical").tolist(),
        "margin": pa.array(margins, mask=~doubtful),
    }
    columns |= {name: rows[name].take(at) for name in ("text", "uri") if name in rows.column_names}
    seconds = time.perf_counter() - start
    return NextItems(pa.table(columns), len(labelled), len(pool), gain, simulated, notes, seconds)


def _margins(head: Head | str | Path, store: FeatureStore, ids: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return how far apart the two best classes of a head are, of some rows of a store.

    NaN of rows that it cannot predict, as they failed when they were embedded again.
    """
    opened = head if isinstance(head, Head) else load_head(head)
    if opened.task != "classification":
        raise UsageError(f"{option('head')} must predict one class of each item, got one for {opened.task}")
    table = opened.predict(store, progress=False)
    if "margin" not in table.column_names:
        raise UsageError(
            f"{option('head')} must give its classes probabilities or scores, and {opened.name!r} gave none: "
            "leave it out, or give another"
        )
    margins = table["margin"].to_numpy()[pc.index_in(ids, table["id"]).to_numpy()]
    return np.asarray(margins, np.float64)
