"""The graph of neighbours, kept in the cache: a run that was killed, or other options, need not search again."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpipe._utils.cache import cannot_cache, find_cache, keep_limit, make_cache, mark_used
from embedpipe._utils.checksums import read_checked, write_checked
from embedpipe._utils.progress import Advance, uncounted
from embedpipe.evaluation.comparison.cached_results import code_key
from embedpipe.neighbours.graph import Graph, neighbour_graph
from embedpipe.neighbours.tuning import Recall

#: The part of the cache folder that holds the graphs.
PART = "graphs"
#: Graphs of fewer rows are made in seconds.
LEAST_ROWS = 10_000
#: Rows that are hashed at a time.
BLOCK = 4096


def kept_graph(Z: npt.NDArray[np.float32], k: int, advance: Advance = uncounted) -> Graph:
    """Return the graph of `neighbour_graph`, from the cache if these vectors had one before.

    Parameters
    ----------
    Z : float32 array (n_rows, dim)
    k : int
    advance : callable, optional
        Is called with the number of rows that are finished; not for a graph from the cache.
    """
    if len(Z) < LEAST_ROWS:
        return neighbour_graph(Z, k, advance=advance)
    name = _name(Z, k)
    folder = find_cache(PART)
    if folder is not None and (graph := _read(folder / name, (len(Z), k))) is not None:
        return graph
    graph = neighbour_graph(Z, k, advance=advance)
    _write(name, graph)
    return graph


def _name(Z: npt.NDArray[np.float32], k: int) -> str:
    digest = hashlib.sha256(repr((Z.shape, k, code_key(["neighbours"]))).encode())
    for start in range(0, len(Z), BLOCK):
        digest.update(np.ascontiguousarray(Z[start : start + BLOCK]).data)
    return digest.hexdigest()[:32]


def _read(file: Path, shape: tuple[int, int]) -> Graph | None:
    """Return a graph that `_write` wrote; None if it is missing, damaged or of another shape."""
    try:
        with np.load(io.BytesIO(read_checked(file)), allow_pickle=False) as archive:
            scores, positions, recall = (archive[name] for name in ("scores", "positions", "recall"))
        if scores.shape != shape or positions.shape != shape or positions.max() >= shape[0]:
            return None
        mean, at_least, queries = recall.tolist()
        graph = Graph(scores, positions.astype(np.int64), Recall(shape[1], mean, at_least, int(queries)))
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    mark_used(file)
    return graph


def _write(name: str, graph: Graph) -> None:
    """Keep a graph. A disk that is full is no error."""
    recall = graph.recall
    buffer = io.BytesIO()
    np.savez(
        buffer,
        scores=graph.scores,
        positions=graph.positions.astype(np.int32),
        recall=np.array([recall.mean, recall.at_least, recall.rows]),
    )
    try:
        write_checked(make_cache(PART) / name, buffer.getvalue())
    except OSError as error:
        cannot_cache(error)
    keep_limit()
