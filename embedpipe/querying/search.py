"""`search`: from ids, images, texts and vectors to their neighbours in a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.option_names import option
from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.backbones.spec import random_notes
from embedpipe.embedding.options import ComputeOptions
from embedpipe.querying.filters import rows_where
from embedpipe.querying.index import SimilarityIndex
from embedpipe.querying.neighbours import Neighbours
from embedpipe.querying.options import SearchOptions
from embedpipe.querying.queries import Query, resolve_queries
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import SearchParameters

OPTIONS = (SearchOptions, ReloadOptions, ComputeOptions)


@takes_options(*OPTIONS)
def search(
    store: FeatureStore | SimilarityIndex | str | Path,
    query: Any,
    *,
    progress: bool | None = None,
    **options: Unpack[SearchParameters],
) -> Neighbours:
    """Find the items of a store that are nearest to each query by cosine.

    The search is exact, and compares every query with every row, unless the store has an index: then the answer says
    with what recall it was found (`Neighbours.how`). Ties go to the lower id.

    Parameters
    ----------
    store : FeatureStore, path or SimilarityIndex
        With an index, many calls read the vectors only once.
    query : str, path-like, array, image, or a list of these
        A string is an id of the store if the store has that id. Else it is a path if a file or folder is there: a
        ``.npy`` file of vectors (n, dim) or (dim,), or any source that `embedpipe.embed` takes. Else it is a text to
        search for, in a store of texts or in a store of images whose backbone also embeds texts. An array of floats
        is one vector, or one per row. An item of the store, given by id or by path, is not its own neighbour.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    Neighbours
        With one row per neighbour in ``table``. A query that cannot be read or embedded has one row with the reason
        in ``error``.

    Raises
    ------
    UsageError
        If the store cannot be searched by a query, a vector is zero, not finite or of another length, or ``where`` is
        refused (see `embedpipe.querying.rows_where`).
    SpecMismatchError
        If the backbone that loads is not the one that made the store's vectors.

    See Also
    --------
    SimilarityIndex : The vectors in memory, searched by vectors.
    embedpipe.report.draw_neighbours : Draw queries and neighbours as a PNG file.

    Examples
    --------
    >>> neighbours = embedpipe.search("photos.features", "new_photos/0.jpg", k=3)
    >>> neighbours.table["id"].to_pylist()
    ['cat/05.jpg', 'cat/09.jpg', 'cat/10.jpg']
    >>> embedpipe.search("messages.features", "win a prize", k=1).table["text"].to_pylist()
    ['You have won prize number 0, call now to claim 0 pounds!']
    """
    search_options, reload_options, compute = build_options(OPTIONS, options)
    index = store if isinstance(store, SimilarityIndex) else SimilarityIndex.load(store, search_options.layer)
    show = Progress(progress)
    show.say_all(random_notes([index.store.spec]))
    rows = None
    if search_options.where is not None:
        rows = np.flatnonzero(rows_where(index.store, search_options.where))
        if not len(rows):
            show.say(f"no row of {index.store.path!r} passes {option('where', search_options.where)}")
    queries = resolve_queries(index, query, reload_options, compute, show)
    table = _find_neighbours(index, queries, search_options, rows)
    how = index.how(rows=rows, exact=search_options.exact)
    return Neighbours(table, index.store.path, index.layer, how, len(index) if rows is None else len(rows))


def _find_neighbours(
    index: SimilarityIndex, queries: list[Query], options: SearchOptions, rows: npt.NDArray[np.int64] | None
) -> pa.Table:
    """Return the neighbours' rows of the store, by query and rank; ``rows`` are those to search in."""
    k = options.k
    vectors = [query.vector for query in queries if query.vector is not None]
    # One more than asked for, as an item of the store is not its own neighbour.
    nearest = iter(
        zip(*index.search(np.stack(vectors), k + 1, rows=rows, exact=options.exact), strict=True) if vectors else ()
    )
    schema = _schema(queries)
    text = schema.field("query_label").type == pa.string()
    answers: list[dict[str, Any]] = []
    for query in queries:
        label = str(query.label) if text and query.label is not None else query.label
        values = {"query": query.name, "query_uri": query.uri, "query_label": label, "error": query.error}
        values |= {"query_text": query.text} if "query_text" in schema.names else {}
        if query.vector is None:
            answers.append(values)
            continue
        scores, positions = next(nearest)
        others = positions != (-1 if query.row is None else query.row)
        pairs = zip(scores[others][:k].tolist(), positions[others][:k].tolist(), strict=True)
        answers += [{**values, "rank": rank, "score": score, "row": row} for rank, (score, row) in enumerate(pairs, 1)]
    return _with_store_columns(index, pa.Table.from_pylist(answers, schema=schema))


def _schema(queries: list[Query]) -> pa.Schema:
    kinds = {type(query.label) for query in queries} - {type(None)}
    labels = pa.array([query.label for query in queries]).type if len(kinds) == 1 else pa.string()
    texts = [(name, pa.string()) for name in ("query", "query_uri")]
    if any(query.text is not None for query in queries):
        texts.append(("query_text", pa.string()))
    numbers = [("rank", pa.int64()), ("score", pa.float64()), ("row", pa.int64())]
    return pa.schema([*texts, ("query_label", labels), *numbers, ("error", pa.string())])


def _with_store_columns(index: SimilarityIndex, neighbours: pa.Table) -> pa.Table:
    """Replace the column ``row`` by the store's columns."""
    ids = index.ids.take(neighbours.column("row").combine_chunks())
    names = [name for name in index.store.data_columns if name != "id"]
    rows = index.store.table.rows(ids.unique().drop_null(), ["id", *names])
    where = pc.index_in(ids, value_set=rows.column("id").combine_chunks())
    columns = {name: neighbours.column(name) for name in neighbours.column_names if name not in ("row", "error")}
    stored = {name: rows.column(name).take(where) for name in names}
    # Where a metadata column of the store has the name of one of these columns, these win.
    return pa.table({**stored, **columns, "id": ids, "error": neighbours.column("error")}).select(
        [*columns, "id", *(name for name in names if name not in {*columns, "error"}), "error"]
    )
