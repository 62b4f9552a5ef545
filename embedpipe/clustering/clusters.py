"""`clusters`: which groups the rows of a store form by themselves."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.clustering.communities import MOST_ROWS, cluster_rows
from embedpipe.clustering.options import ClustersOptions
from embedpipe.clustering.result import Clusters
from embedpipe.clustering.words import nearest_words, words_of_texts
from embedpipe.errors import UsageError
from embedpipe.heads.training.vectors import centred_directions, read_finite, require_different
from embedpipe.heads.zero_shot.text_heads import embed_classes
from embedpipe.neighbours.exact import BLOCK, normalised
from embedpipe.store import FeatureStore
from embedpipe.store.editing.exclusion import and_excluded, left_out_notes
from embedpipe.store.opening import known_columns, open_store

if TYPE_CHECKING:
    from embedpipe._utils.parameters import ClustersParameters

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
#: Most typical rows that are named of each cluster, and words in its name.
REPRESENTATIVES, NAMED = 12, 3
#: A row with a smaller share of its neighbours in its cluster lies between clusters.
BETWEEN = 0.5


@takes_options(ClustersOptions, ReloadOptions)
def clusters(
    store: FeatureStore | str | Path, *, progress: bool | None = None, **options: Unpack[ClustersParameters]
) -> Clusters:
    """Group the rows of a store that are near one another, and describe each group.

    Each row is in one cluster; rows most of whose neighbours are in others are counted as lying between clusters. How
    many clusters there are follows from the data. Texts give words that are more frequent in a cluster than in others;
    for photos the nearest of ``words`` are taken, if the backbone embeds texts. Nothing is changed.

    Parameters
    ----------
    store : FeatureStore or path
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Clusters

    Raises
    ------
    UsageError
        If an option is wrong, the store has fewer than 3 rows, or ``words`` are given and the backbone embeds none.
    TrainingDataError
        If all vectors are equal, or one is not finite.

    Notes
    -----
    Communities of the graph of the 15 nearest neighbours, by Louvain's method; `embedpipe.clustering.communities` has
    the sources. Of more than 20,000 rows so many are drawn, and the others go where most of their neighbours are.

    Examples
    --------
    >>> clusters = embedpipe.clusters("photos.features")
    >>> clusters.table.column_names
    ['id', 'cluster', 'share']
    >>> clusters.to_html("clusters.html")
    PosixPath('clusters.html')
    """
    start = time.perf_counter()
    chosen, reload_options = build_options((ClustersOptions, ReloadOptions), options)
    opened = open_store(store)
    show = Progress(progress)
    is_text = opened.spec.modality == "text"
    if chosen.words and (is_text or opened.spec.is_imported):
        holds = "texts" if is_text else "imported vectors"
        raise UsageError(f"{option('words')} describe photos, and {opened.path!r} holds {holds}: leave them out")
    rows, excluded = known_columns(opened, ["text"] if is_text else [], label=chosen.label)
    ids, layers = rows["id"].combine_chunks(), opened.select_layers(chosen.layer)
    if len(ids) < 3:
        given = f"{len(ids)}{and_excluded(excluded)}"
        raise UsageError(f"{opened.path!r} must have at least 3 rows to be grouped, got {given}")
    notes = left_out_notes(excluded)
    of_words: npt.NDArray[np.float32] | None = None
    if chosen.words:
        of_words = embed_classes(
            opened.spec.only(*(layer.name for layer in layers)), chosen.words, (), reload_options, show
        )
    with show.step("reading vectors"):
        X = read_finite(opened, layers, ids)
        require_different(X, opened, "grouped")
        Z, _ = centred_directions(X)
    number, shares = cluster_rows(Z, chosen.resolution, chosen.seed, show)
    if len(ids) > MOST_ROWS:
        notes.append(f"clusters are those of {MOST_ROWS:,} rows, drawn at random; the others are assigned to them")
    sizes = np.bincount(number)
    words: list[list[str]] = [[] for _ in sizes]
    if "text" in rows.column_names:
        with show.step("counting words"):
            words = words_of_texts([text or "" for text in rows["text"].to_pylist()], number, chosen.seed)
    elif of_words is not None:
        words = nearest_words(_means(normalised(X), number), sizes, of_words, chosen.words)
    names = [f"cluster {place}" + f": {', '.join(each[:NAMED])}" * bool(each) for place, each in enumerate(words, 1)]
    typical = _representatives(Z, number)
    labels, agreement = _labels(rows, chosen.label, number)
    groups = {
        "cluster": pa.array(names, pa.string()),
        "rows": pa.array(sizes),
        "between": pa.array(np.bincount(number, shares < BETWEEN, len(sizes)).astype(np.int64)),
        "words": pa.array(words, pa.list_(pa.string())),
        "representatives": pa.array([ids.take(pa.array(each)).to_pylist() for each in typical], pa.list_(pa.string())),
        "label": pa.array([label for label, _ in labels], pa.string()),
        "label_share": pa.array([share for _, share in labels], pa.float64()),
    }
    table = {"id": ids, "cluster": pa.array(names).take(pa.array(number)), "share": pa.array(shares)}
    seconds = time.perf_counter() - start
    return Clusters(pa.table(table), pa.table(groups), opened.path, agreement, notes, seconds)


def _means(Z: npt.NDArray[np.float32], number: Rows) -> Floats:
    """Return the mean of each cluster's rows, float64 (n_clusters, dim)."""
    total = np.zeros((int(number.max()) + 1, Z.shape[1]))
    for start in range(0, len(Z), step := max(1, BLOCK // (8 * Z.shape[1]))):
        np.add.at(total, number[start : start + step], Z[start : start + step])
    return total / np.bincount(number)[:, None]


def _representatives(Z: npt.NDArray[np.float32], number: Rows) -> list[Rows]:
    """Return different rows of each cluster that are nearest to its mean, the nearest first."""
    means = _means(Z, number).astype(np.float32)
    nearness = np.empty(len(Z))
    for start in range(0, len(Z), step := max(1, BLOCK // (8 * Z.shape[1]))):
        part = slice(start, start + step)
        nearness[part] = np.einsum("nd,nd->n", Z[part], means[number[part]])
    order = np.lexsort((-nearness, number))
    # Of copies, which are equally near, one is enough.
    order = order[np.append(True, np.diff(nearness[order]) != 0)]
    return [order[number[order] == cluster][:REPRESENTATIVES] for cluster in range(len(means))]


def _labels(rows: pa.Table, label: str, number: Rows) -> tuple[list[tuple[str | None, float | None]], dict[str, float]]:
    """Return the most frequent label of each cluster with its share, and the agreement of all labels with clusters."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nothing: list[tuple[str | None, float | None]] = [(None, None)] * (int(number.max()) + 1)
    if label not in rows.column_names or pa.types.is_floating(rows[label].type):
        return nothing, {}
    values = [None if value is None else str(value) for value in rows[label].to_pylist()]
    known = np.array([value is not None for value in values])
    if len({*values} - {None}) < 2:
        return nothing, {}
    found = []
    for cluster in range(len(nothing)):
        counts = Counter(values[row] for row in np.flatnonzero((number == cluster) & known))
        ((value, count),) = counts.most_common(1) or [(None, 0)]
        found.append((value, count / counts.total() if count else None))
    y = np.array([value for value in values if value is not None])
    ari, nmi = (score(y, number[known]) for score in (adjusted_rand_score, normalized_mutual_info_score))
    return found, {"ari": float(ari), "nmi": float(nmi)}
