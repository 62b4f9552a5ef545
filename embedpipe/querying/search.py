"""`search`: from ids, images, texts and vectors to their neighbours in a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
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
from embedpipe.errors import UsageError
from embedpipe.querying.distinct import first_distinct, mean_row
from embedpipe.querying.feedback import with_feedback
from embedpipe.querying.filters import rows_where
from embedpipe.querying.index import SimilarityIndex
from embedpipe.querying.neighbours import Neighbours
from embedpipe.querying.options import SearchOptions
from embedpipe.querying.queries import Query, as_items, resolve_queries
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe._utils.parameters import SearchParameters

Rows = npt.NDArray[np.int64]
OPTIONS = (SearchOptions, ReloadOptions, ComputeOptions)


@takes_options(*OPTIONS)
def search(
    store: FeatureStore | SimilarityIndex | str | Path,
    query: Any = None,
    *,
    like: Any = None,
    unlike: Any = None,
    progress: bool | None = None,
    **options: Unpack[SearchParameters],
) -> Neighbours:
    """Find the items of a store that are nearest to each query by cosine.

    The search is exact, and compares every query with every row, unless the store has an index: then the answer says
    with what recall it was found (`Neighbours.how`). Ties go to the lower id.

    Parameters
    ----------
    store : FeatureStore, path or SimilarityIndex
        With an index, many calls open the vectors only once.
    query : str, path-like, array, image, or a list of these
        A string is an id of the store if the store has that id. Else it is a path if a file or folder is there: a
        ``.npy`` file of vectors (n, dim) or (dim,), or any source that `embedpipe.embed` takes. Else it is a text to
        search for, in a store of texts or in a store of images whose backbone also embeds texts. An array of floats
        is one vector, or one per row. An item of the store, given by id or by path, is not its own neighbour. Of
        several queries, one that cannot be searched by gets a row with the reason, and the others are answered.
    like, unlike : as ``query``, optional
        Items that move every query: an image with words in ``like`` is "this, but ...". The vector that is searched
        for is ``query + mean(like) - 0.5 * mean(unlike)`` of vectors of length one (Rocchio 1971). Without a query,
        there is one answer to all of ``like``. Items of the store that are named here are no answers.
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
        If the store cannot be searched by a query, a vector is zero, not finite or of another length, ``layer`` is not
        that of the index, or ``where`` is refused (see `embedpipe.querying.rows_where`).
    SpecMismatchError
        If the backbone that loads is not the one that made the store's vectors.

    See Also
    --------
    SimilarityIndex : A store that is open for many searches, by vectors.
    embedpipe.report.draw_neighbours : Draw queries and neighbours as a PNG file.

    Examples
    --------
    >>> neighbours = embedpipe.search("photos.features", "new_photos/0.jpg", k=3)
    >>> neighbours.table["id"].to_pylist()
    ['cat/05.jpg', 'cat/09.jpg', 'cat/10.jpg']
    >>> likes = embedpipe.search("photos.features", like=["cat/00.jpg", "cat/01.jpg"], unlike="coffee/00.jpg", k=2)
    >>> likes.table["query"].to_pylist()[0]
    'like cat/00.jpg, like cat/01.jpg, unlike coffee/00.jpg'
    >>> embedpipe.search("messages.features", "win a prize", k=1).table["text"].to_pylist()
    ['You have won prize number 0, call now to claim 0 pounds!']
    """
    search_options, reload_options, compute = build_options(OPTIONS, options)
    layer = search_options.layer
    if layer and isinstance(store, SimilarityIndex) and store.store.select_layers(layer) != store.layers:
        raise UsageError(
            f"{option('layer', layer)} must be that of the index, which compares by {store.layer!r}: leave it out, or "
            "give the store"
        )
    show = Progress(progress)
    with show.step("reading vectors"):
        index = store if isinstance(store, SimilarityIndex) else SimilarityIndex.load(store, layer)
    show.say_all([*random_notes([index.store.spec]), *index.notes()])
    rows = None
    if search_options.where is not None:
        rows = np.flatnonzero(rows_where(index.store, search_options.where))
        if not len(rows):
            show.say(f"no row of {index.store.path!r} passes {option('where', search_options.where)}")
    given = [as_items(items, name) for name, items in (("query", query), ("like", like), ("unlike", unlike))]
    if not any(given):
        raise UsageError(f"search needs a query, or {option('like')}: give an id, an image, a text or a vector")
    resolved = iter(resolve_queries(index, [item for items in given for item in items], reload_options, compute, show))
    asked = [[query for _ in items for query in next(resolved)] for items in given]
    with show.step("searching"):
        answers = _answers(index, with_feedback(*asked), search_options, rows)
    how = index.how(rows=rows, exact=search_options.exact)
    within = index.within(rows)
    return Neighbours(answers, index.store.path, index.layer, how, len(index) if within is None else len(within))


def _answers(index: SimilarityIndex, queries: list[Query], options: SearchOptions, rows: Rows | None) -> pa.Table:
    """Return the neighbours' rows of the store, by query and rank; ``rows`` are those to search in."""
    nearest = iter((_nearest_distinct if options.distinct else _nearest)(index, queries, options, rows))
    schema = _schema(queries, options.distinct)
    text = schema.field("query_label").type == pa.string()
    answers: list[dict[str, Any]] = []
    for query in queries:
        label = str(query.label) if text and query.label is not None else query.label
        values = {"query": query.name, "query_uri": query.uri, "query_label": label, "error": query.error}
        values |= {"query_text": query.text} if "query_text" in schema.names else {}
        if query.vector is None:
            answers.append(values)
            continue
        columns = next(nearest)
        for rank, found in enumerate(zip(*(column.tolist() for column in columns.values()), strict=True), 1):
            answers.append({**values, "rank": rank, **dict(zip(columns, found, strict=True))})
    return _with_store_columns(index, pa.Table.from_pylist(answers, schema=schema))


def _nearest(
    index: SimilarityIndex, queries: Sequence[Query], options: SearchOptions, rows: Rows | None
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield score and row of the neighbours of each query with a vector, without the query's own rows."""
    vectors = [query.vector for query in queries if query.vector is not None]
    if not vectors:
        return
    # As many more as are left out, as an item of the store is not its own neighbour.
    k = options.k + max(len(query.rows) for query in queries)
    found = index.search(np.stack(vectors), k, rows=rows, exact=options.exact)
    queries = [query for query in queries if query.vector is not None]
    for query, scores, positions in zip(queries, *found, strict=True):
        others = np.flatnonzero(~np.isin(positions, query.rows))[: options.k]
        yield {"score": scores[others], "row": positions[others]}


def _nearest_distinct(
    index: SimilarityIndex, queries: Sequence[Query], options: SearchOptions, rows: Rows | None
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield what `_nearest` does, without near-duplicates, and the number of those of each neighbour."""
    centre = mean_row(index.vectors)
    options = dataclasses.replace(options, k=min(options.k, len(index)))
    for query in (query for query in queries if query.vector is not None):
        k = options.k + 1
        while True:
            k *= 4
            (found,) = _nearest(index, [query], dataclasses.replace(options, k=k), rows)
            result = first_distinct(index.vectors[found["row"]], centre, options.k)
            if result.complete or len(found["row"]) < k:
                break
        yield {name: column[result.kept] for name, column in found.items()} | {"near_duplicates": result.near}


def _schema(queries: list[Query], distinct: bool) -> pa.Schema:
    kinds = {type(query.label) for query in queries} - {type(None)}
    labels = pa.array([query.label for query in queries]).type if len(kinds) == 1 else pa.string()
    texts = [(name, pa.string()) for name in ("query", "query_uri")]
    if any(query.text is not None for query in queries):
        texts.append(("query_text", pa.string()))
    numbers = [("rank", pa.int64()), ("score", pa.float64()), ("row", pa.int64())]
    if distinct:
        numbers.append(("near_duplicates", pa.int64()))
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
