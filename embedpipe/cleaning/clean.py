"""`clean`: one pass over a store for duplicates, wrong labels and outliers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.cleaning.comparable import require_comparable
from embedpipe.cleaning.findings import Findings, Recorder
from embedpipe.cleaning.graph_cache import kept_graph
from embedpipe.cleaning.held_out import FOLDS, fold_rows, held_out_probabilities
from embedpipe.cleaning.judging.duplicates import Pairs, equal_content, find_pairs, known_partners, pairs_between
from embedpipe.cleaning.judging.label_errors import LabelErrors, find_label_errors, with_neighbours
from embedpipe.cleaning.judging.outliers import robust_z
from embedpipe.cleaning.options import CleanOptions
from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.heads.options import FitOptions
from embedpipe.heads.training.training_data import labels_of
from embedpipe.heads.training.vectors import centred_directions, read_finite, require_different
from embedpipe.neighbours.duplicates import duplicate_pairs, join_groups
from embedpipe.neighbours.exact import nearest_rows, normalised
from embedpipe.neighbours.graph import Graph, RowSearch
from embedpipe.splits.groups import find_groups, merge_groupings
from embedpipe.splits.split_column import parse_split_names
from embedpipe.splits.stored_hashes import stored_hashes
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import and_excluded, left_out_notes
from embedpipe.store.editing.labelling import as_text
from embedpipe.store.opening import known_columns, open_store
from embedpipe.store.scan import has_label

if TYPE_CHECKING:
    from embedpipe._utils.parameters import CleanParameters

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
#: Of more labelled rows, linear discriminants predict labels: logistic regression would take minutes.
MOST_FOR_LOGREG = 20_000


@takes_options(CleanOptions)
def clean(
    store: FeatureStore | str | Path,
    *,
    against: FeatureStore | str | Path | None = None,
    progress: bool | None = None,
    **options: Unpack[CleanParameters],
) -> Findings:
    """Find what is likely to be wrong with the rows of a store. Nothing is changed.

    Duplicates: rows with the same content, and near-duplicates, also between splits, with other labels, or in another
    store. Label errors: rows of which another class is more probable, by heads that were not fitted on them and by
    their neighbours. Outliers: rows far from all others, and held-out rows that no training row resembles.

    Parameters
    ----------
    store : FeatureStore or path
    against : FeatureStore or path, optional
        Another store of the same backbone; rows that it has too are duplicates.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Findings

    Raises
    ------
    UsageError
        If an option is wrong, or the stores have other backbones.
    TrainingDataError
        If all vectors are equal, or one is not finite.
    StoreError
        If a store cannot be read.

    Notes
    -----
    One graph of the nearest neighbours serves all (`embedpipe.neighbours.graph.neighbour_graph`: exact up to 30,000
    rows). From 10,000 rows it is kept in the cache, so that a run that was killed goes on from it. Cosines are those of
    vectors less their mean. Rows that are duplicates are predicted by the same fold.

    Examples
    --------
    >>> findings = embedpipe.clean("photos.features")
    >>> sorted(findings.counts)
    ['duplicate', 'far from training', 'label conflict', 'label error', 'leak', 'near-duplicate', 'outlier']
    >>> findings.save("findings.csv")
    []
    """
    start = time.perf_counter()
    (chosen,) = build_options((CleanOptions,), options)
    opened = open_store(store)
    show = Progress(progress)
    columns = ["content_hash", "uri", "split", "text"]
    rows, excluded = known_columns(opened, columns, label=chosen.label, group=chosen.group)
    ids = rows["id"].combine_chunks()
    layers = opened.select_layers(chosen.layer)
    if len(ids) < 2:
        given = f"{len(ids)}{and_excluded(excluded)}"
        raise UsageError(f"{opened.path!r} must have at least 2 rows to compare, got {given}")
    with show.step("reading vectors"):
        X = read_finite(opened, layers, ids)
        require_different(X, opened, "compared")
        Z, centre = centred_directions(X)
    k = min(chosen.neighbours, len(ids) - 1)
    with show.step("finding neighbours", len(ids), "rows") as advance:
        graph = kept_graph(Z, k, advance)
    pictures = stored_hashes(opened, ids)
    with show.step("finding duplicates"):
        near = duplicate_pairs(graph, chosen.near_duplicates, pictures)
        pairs = find_pairs(equal_content(rows["content_hash"]), near)
    split = parse_split_names(rows["split"].to_pylist()) if "split" in rows.column_names else None
    y, notes = _labels(rows, chosen)
    notes += left_out_notes(excluded)
    notes += _notes_on_hashes(opened, pictures, len(ids))
    found = Recorder(rows, chosen.label, split)
    _record_pairs(found, pairs, split, None if y is None else _label_names(rows[chosen.label]))
    _record_outliers(found, Z, graph, split, pairs, chosen)
    confused: list[tuple[str, str, int]] = []
    if y is not None:
        errors, classes, more = _label_errors(X, rows, y, pairs, graph, chosen, show)
        notes += more
        for row, proposed, score in zip(errors.rows, errors.proposed, errors.scores, strict=True):
            found.add("label error", int(row), float(score), proposed=classes[proposed])
        confused = [(classes[label], classes[other], count) for label, other, count in errors.confused]
    if against is not None:
        with show.step("comparing with the other store"):
            _record_other_store(found, opened, against, layers, centre, Z, graph, rows, pictures, chosen)
    return Findings(
        table=found.table(),
        store=opened.path,
        label=chosen.label,
        rows=len(ids),
        confused=confused,
        recall=graph.recall.mean,
        notes=notes,
        seconds=time.perf_counter() - start,
    )


def _labels(rows: pa.Table, options: CleanOptions) -> tuple[npt.NDArray[Any] | None, list[str]]:
    """Return the classes of the labelled rows, or None with a note on why labels are not judged."""
    if options.label not in rows.column_names:
        return None, ["the store has no labels, so none are judged"]
    column = rows[options.label]
    known = has_label(column)
    if not known.any():
        return None, [f"no row has a {options.label}, so no labels are judged"]
    try:
        y, task, _ = labels_of(rows.filter(pa.array(known)), FitOptions(label=options.label))
    except TrainingDataError as error:
        return None, [f"labels are not judged: {error}"]
    if task != "classification":
        return None, [f"labels are judged if they are classes, and {options.label!r} holds numbers"]
    return y, []


def _label_names(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return labels as texts, None where there are none."""
    names = np.array(column.cast(pa.string()).to_pylist(), object)
    names[~has_label(column)] = None
    return names


def _notes_on_hashes(store: FeatureStore, pictures: PerceptualHashes | None, rows: int) -> list[str]:
    """Return a note if pictures have no perceptual hash."""
    lacking = rows if pictures is None else int((~pictures.known).sum())
    if store.spec.modality != "image" or not lacking:
        return []
    why = "vectors are imported" if store.spec.is_imported else "embed into a new store for hashes"
    return [f"pictures without a perceptual hash, whose near-duplicates are found by cosine: {lacking:,} ({why})"]


def _record_pairs(
    found: Recorder, pairs: Pairs, split: npt.NDArray[Any] | None, labels: npt.NDArray[Any] | None
) -> None:
    ways = np.where(pairs.exact, "exact", np.where(pairs.mirrored, "mirrored", "near")).tolist()
    for row, related, score, how in zip(pairs.rows, pairs.related, pairs.scores, ways, strict=True):
        found.add("duplicate" if how == "exact" else "near-duplicate", row, score, related=related, how=how)
    for kind, values in (("leak", split), ("label conflict", labels)):
        if values is None:
            continue
        known = np.array([value is not None for value in values])
        for row, related, score, how in zip(pairs.rows, known_partners(pairs, known), pairs.scores, ways, strict=True):
            if known[row] and known[related] and values[row] != values[related]:
                proposed = values[related] if values is labels else None
                found.add(kind, row, score, related=related, how=how, proposed=proposed)


def _record_outliers(
    found: Recorder,
    Z: npt.NDArray[np.float32],
    graph: Graph,
    split: npt.NDArray[Any] | None,
    pairs: Pairs,
    options: CleanOptions,
) -> None:
    """Record rows far from their neighbours, and held-out rows far from the nearest training row."""
    first = np.ones(len(Z), bool)
    first[pairs.rows] = False  # copies of an outlier would be neighbours of one another
    near = np.where(graph.scores >= options.near_duplicates, np.nan, graph.scores)
    usable = np.isfinite(near).any(axis=1) & first
    distance = np.ones(len(Z))
    distance[usable] = 1 - np.nanmean(near[usable], axis=1)
    z = robust_z(distance, distance[usable])
    for row in np.flatnonzero((z > options.outlier_z) & usable)[np.argsort(-z[(z > options.outlier_z) & usable])]:
        found.add("outlier", int(row), float(z[row]), related=int(graph.positions[row, 0]))
    if split is None:
        return
    train, held_out = np.flatnonzero(split == "train"), np.flatnonzero(np.isin(split, ["validation", "test"]))
    if len(train) < 2 or not len(held_out):
        return
    among_training = RowSearch(Z[train], 1)
    own = among_training.neighbours(np.arange(len(train)), 1)[0][:, 0]
    cosine, nearest = among_training.nearest(Z[held_out], 1)
    z = robust_z(1 - cosine[:, 0], 1 - own[own < options.near_duplicates])
    for place in np.argsort(-z, kind="stable")[: int((z > options.outlier_z).sum())]:
        found.add("far from training", int(held_out[place]), float(z[place]), related=int(train[nearest[place, 0]]))


def _label_errors(
    X: npt.NDArray[np.float32],
    rows: pa.Table,
    y: npt.NDArray[Any],
    pairs: Pairs,
    graph: Graph,
    options: CleanOptions,
    show: Progress,
) -> tuple[LabelErrors, list[str], list[str]]:
    """Predict the labelled rows by folds that keep duplicates and groups together, and judge their labels."""
    labelled = np.flatnonzero(has_label(rows[options.label]))
    groups = duplicates = join_groups(np.arange(len(X)), pairs.rows, pairs.related)
    if options.group is not None:
        own = find_groups(len(X), rows[options.group].to_pylist(), None, "copies").numbers
        assert own is not None  # groups were given
        groups = merge_groupings([duplicates, own])
    nothing = LabelErrors(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), [])
    if len(np.unique(y)) < 2:
        return nothing, [], ["labels are not judged: all are the same"]
    try:
        folds = fold_rows(y, groups[labelled], options.seed)
    except TrainingDataError as error:
        return nothing, [], [f"labels are not judged: {error}"]
    judged = labelled[folds.rows]
    classes, kinds = np.unique(y[folds.rows], return_inverse=True)
    head = "logreg" if len(judged) <= MOST_FOR_LOGREG else "lda"
    with show.step(f"predicting labels by {head}", FOLDS, "folds") as advance:
        probabilities = held_out_probabilities(X, judged, y[folds.rows], folds.splits, head, advance)
    place = np.full(len(X), -1)
    place[judged] = np.arange(len(judged))
    near = np.where(graph.positions[judged] >= 0, place[graph.positions[judged]], -1)
    errors = find_label_errors(with_neighbours(probabilities, kinds, near, graph.scores[judged]), kinds)
    found = LabelErrors(judged[errors.rows], errors.proposed, errors.scores, errors.confused)
    notes = [f"labels were predicted by {head} in {FOLDS} folds", *folds.notes]
    return found, as_text(pa.array(classes)).to_pylist(), notes


def _record_other_store(
    found: Recorder,
    store: FeatureStore,
    against: FeatureStore | str | Path,
    layers: Any,
    centre: npt.NDArray[np.float32],
    Z: npt.NDArray[np.float32],
    graph: Graph,
    rows: pa.Table,
    pictures: PerceptualHashes | None,
    options: CleanOptions,
) -> None:
    """Record rows that another store of the same backbone has too."""
    other = open_store(against)
    require_comparable(store, other, layers)
    columns = other.to_arrow(["id", "content_hash"])
    ids = columns["id"].combine_chunks()
    if not len(ids):
        return
    others = normalised(read_finite(other, layers, ids) - centre)
    cosines, nearest = nearest_rows(Z, others, 1, "cosine")
    near = pairs_between(
        graph, cosines[:, 0], nearest[:, 0], options.near_duplicates, pictures, stored_hashes(other, ids)
    )
    same = {content: row for row, content in reversed(list(enumerate(columns["content_hash"].to_pylist())))}
    for row, content in enumerate(rows["content_hash"].to_pylist()):
        if content in same:
            found.add("duplicate", row, 1.0, elsewhere=f"{other.path}:{ids[same[content]].as_py()}", how="exact")
        elif row in near:
            related, score, mirrored = near[row]
            place = f"{other.path}:{ids[related].as_py()}"
            found.add("near-duplicate", row, score, elsewhere=place, how="mirrored" if mirrored else "near")
