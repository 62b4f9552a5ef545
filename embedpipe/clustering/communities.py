"""Clusters as communities of the graph of nearest neighbours.

Louvain's method (Blondel et al., J. Stat. Mech. 2008) on a graph of neighbours is the clustering of PhenoGraph (Levine
et al., Cell 162, 2015), which is usual for cells in biology. It needs no number of clusters and no shape of them, and
keeps every row. HDBSCAN leaves 70 to 80 % of the clothing photographs out, in 5 or 15 principal components, and k-means
agrees less with the classes even if it is given their number: `benchmarks/clusters.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Progress
from embedpipe.neighbours.graph import Graph, RowSearch, neighbour_graph

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Neighbours of a row in the graph.
NEIGHBOURS = 15
#: Of more rows, so many are drawn and clustered; the others go where most of their neighbours among them are.
MOST_ROWS = 20_000


def cluster_rows(Z: npt.NDArray[np.float32], resolution: float, seed: int, show: Progress) -> tuple[Rows, Floats]:
    """Return the cluster of each row, and the share of its neighbours that are in it.

    Parameters
    ----------
    Z : float32 array (n_rows, dim)
        Of unit length, n_rows > 1.
    resolution : float
    seed : int
    show : Progress

    Returns
    -------
    clusters : int64 array (n_rows,)
        From 0, the largest cluster first.
    shares : float64 array (n_rows,)
        In [0, 1]. Below 0.5 a row lies between clusters.
    """
    drawn = np.sort(np.random.default_rng(seed).permutation(len(Z))[:MOST_ROWS])
    sample = Z[drawn]
    k = min(NEIGHBOURS, len(sample) - 1)
    with show.step("finding neighbours", len(sample), "rows") as advance:
        graph = neighbour_graph(sample, k, advance=advance)
    with show.step("finding clusters"):
        of_sample = find_communities(graph, resolution, seed)
    clusters, shares = np.empty(len(Z), np.int64), np.empty(len(Z))
    clusters[drawn] = of_sample
    shares[drawn] = (of_sample[graph.positions] == of_sample[:, None]).mean(axis=1)
    others = np.setdiff1d(np.arange(len(Z)), drawn, assume_unique=True)
    if len(others):
        search = RowSearch(sample, k)
        with show.step("assigning the other rows", len(others), "rows") as advance:
            for part in np.array_split(others, 1 + len(others) // 8192):
                near = of_sample[search.nearest(Z[part], k)[1]]
                votes = np.zeros((len(part), of_sample.max() + 1), np.int64)
                np.add.at(votes, (np.arange(len(part))[:, None], near), 1)
                clusters[part], shares[part] = votes.argmax(axis=1), votes.max(axis=1) / k
                advance(len(part))
    sizes = np.bincount(clusters)
    number = np.empty(len(sizes), np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return number[clusters], shares


def find_communities(graph: Graph, resolution: float, seed: int) -> Rows:
    """Return the community of each row of a graph of cosines, numbered from 0."""
    import networkx

    count, k = graph.scores.shape
    rows = np.repeat(np.arange(count), k)
    # Rows with no positive cosine to any other are communities of their own.
    edges = networkx.Graph()
    edges.add_nodes_from(range(count))
    positive = graph.scores.ravel() > 0
    edges.add_weighted_edges_from(
        zip(
            rows[positive].tolist(),
            graph.positions.ravel()[positive].tolist(),
            graph.scores.ravel()[positive].tolist(),
            strict=True,
        )
    )
    communities = networkx.community.louvain_communities(edges, resolution=resolution, seed=seed)
    number = np.empty(count, np.int64)
    for place, members in enumerate(communities):
        number[list(members)] = place
    return number
