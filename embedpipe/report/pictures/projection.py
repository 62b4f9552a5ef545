"""From vectors to points on a plane: t-SNE on the graph of nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.config import usable_cores
from embedpipe._utils.progress import Progress
from embedpipe.neighbours import normalised
from embedpipe.neighbours.exact import Vectors
from embedpipe.neighbours.graph import RowSearch, neighbour_graph

#: With fewer points, t-SNE shows nothing useful, and PCA alone is used.
FEWEST_FOR_TSNE = 10
PERPLEXITY = 15
#: Neighbours that t-SNE reads of each point: three for each unit of perplexity, as usual.
NEIGHBOURS = 3 * PERPLEXITY
#: Iterations with exaggerated attraction, and without.
EARLY, LATE, EXAGGERATION = 250, 500, 12
#: Most points that t-SNE moves; of more rows, a random sample of so many, among which the others are placed.
LANDMARKS = 200_000
#: Nearest landmarks of another row, and rows that are placed at a time.
PLACED_BY, PART = 10, 8192
#: Fewest points for which several threads pay: they wait for each other at each iteration.
THREADED = 10_000
#: Iterations between two looks at the progress.
EVERY = 10

Points = npt.NDArray[np.float32]


def project(vectors: Vectors, seed: int, progress: Progress, landmarks: int = LANDMARKS) -> tuple[Points, str]:
    """Project vectors to two dimensions by their angles: they are scaled to length 1 first.

    t-SNE (van der Maaten and Hinton, JMLR 9, 2008) on the nearest neighbours by cosine, by openTSNE (Policar et al.,
    Journal of Statistical Software 109, 2024), initialised with the first two principal components (Kobak and Berens,
    Nature Communications 10, 2019). Of more than ``landmarks`` rows, a random sample is projected; each other row is
    placed at the median of its ten nearest rows of the sample. With fewer than 10 vectors, or if all are equal, the
    points are the principal components.

    Parameters
    ----------
    vectors : float32 array (n, dim), n >= 1, or a memory map
    seed : int
        Of the sample and of t-SNE. The same seed gives the same points on the same machine.
    progress : Progress
    landmarks : int

    Returns
    -------
    points : float32 array (n, 2)
        The direction of the largest variance is horizontal.
    method : str
        A description, for the picture's footer.
    """
    count = len(vectors)
    unit = normalised(vectors)
    if count <= landmarks:
        chosen = unit
    else:
        sample = np.sort(np.random.default_rng(seed).choice(count, landmarks, replace=False))
        chosen = unit[sample]
    start = _principal(chosen, seed)
    spread = start[:, 0].std()
    if count < FEWEST_FOR_TSNE or spread < 1e-7:
        return start, "PCA of the vectors, scaled to length 1: points that are near have similar vectors."
    points, perplexity = _tsne(chosen, start / spread * 1e-4, seed, progress)
    placed = ""
    if count > landmarks:
        points = _place_others(unit, sample, points, progress)
        placed = f" of a random {landmarks:,} rows; each other row lies at the median of its nearest {PLACED_BY}"
    return _principal(points, seed), (
        f"t-SNE (perplexity {perplexity:.3g}, seed {seed}) by cosine{placed}.\n"
        "Points that are near have similar vectors; distances between groups and sizes of groups mean little."
    )


def _tsne(unit: Points, start: Points, seed: int, progress: Progress) -> tuple[Points, float]:
    """Return the points of t-SNE, and its perplexity."""
    from openTSNE import TSNEEmbedding, affinity, nearest_neighbors

    count = len(unit)
    k = min(NEIGHBOURS, count - 1)
    with progress.step("nearest neighbours", count, "rows") as advance:
        graph = neighbour_graph(unit, k, advance=advance)
    distances = np.sqrt(np.maximum(2 - 2 * graph.scores, 0))
    known = nearest_neighbors.PrecomputedNeighbors(graph.positions, distances)
    affinities = affinity.PerplexityBasedNN(knn_index=known, perplexity=k / 3)
    with progress.step("t-SNE", EARLY + LATE, "iterations") as advance:

        def looked(iteration: int, error: float, points: Any) -> None:
            advance(EVERY)

        embedding = TSNEEmbedding(
            start.astype(np.float64),
            affinities,
            random_state=seed,
            n_jobs=usable_cores() if count >= THREADED else 1,
            callbacks=looked,
            callbacks_every_iters=EVERY,
        )
        embedding.optimize(EARLY, exaggeration=EXAGGERATION, momentum=0.5, inplace=True)
        embedding.optimize(LATE, momentum=0.8, inplace=True)
    return np.asarray(embedding, np.float32), k / 3


def _place_others(unit: Points, sample: npt.NDArray[np.int64], points: Points, progress: Progress) -> Points:
    """Return points of all rows: those of the sample as they are, others at the median of their nearest landmarks."""
    landmarks = unit[sample]
    placed = np.empty((len(unit), 2), np.float32)
    placed[sample] = points
    others = np.setdiff1d(np.arange(len(unit)), sample)
    with progress.step("preparing the search of neighbours"):
        search = RowSearch(landmarks, PLACED_BY)
    with progress.step("placing other rows", len(others), "rows") as advance:
        for start in range(0, len(others), PART):
            part = others[start : start + PART]
            _, near = search.nearest(unit[part], PLACED_BY)
            placed[part] = np.median(points[near], axis=1)
            advance(len(part))
    return placed


def _principal(points: Points, seed: int) -> Points:
    """Return the first two principal components; the second is 0 if there is only one."""
    from sklearn.utils.extmath import randomized_svd

    centred = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    dims = min(2, *centred.shape)
    left, scale, _ = randomized_svd(centred, n_components=dims, random_state=seed)
    components: Points = np.pad(left * scale, ((0, 0), (0, 2 - dims))).astype(np.float32)
    return components
