"""`search`: from ids, images, texts and vectors to a table of their neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.options import build_options, takes_options
from embedpipe._utils.progress import Progress
from embedpipe.backbones.options import ReloadOptions
from embedpipe.embedding.options import ComputeOptions
from embedpipe.querying.index import SimilarityIndex
from embedpipe.querying.options import SearchOptions
from embedpipe.querying.queries import Query, resolve
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
) -> pa.Table:
    """Find what in a store is nearest to each query by cosine; exact.

    Parameters
    ----------
    store : FeatureStore, path or SimilarityIndex
        An index spares reading the store again for every call.
    query : str, path-like, array, image, or a list of such
        A string is an id of the store if there is that one; else a path, if there is that: a ``.npy`` file of
        vectors (n, dim) or (dim,), or any source that `embedpipe.embed` takes; else it is itself the text that is
        searched for, among texts or among photos whose backbone has a tower for texts. An array of floats is a
        vector, or one a row. An item of the store, by id or by place, is not its own neighbour.
    progress : bool, optional
        Show progress on standard error; by default only on a terminal.
    **options
        Fields of `SearchOptions`, `ReloadOptions` and `ComputeOptions`: ``k=5``...

    Returns
    -------
    pyarrow.Table
        One row a neighbour, by query and rank: ``query`` (str; the text itself, where it is one), ``query_uri``,
        ``query_text`` (only where queries are texts: their beginnings), ``query_label``, ``rank`` (int64, from 1),
        ``score`` (float64, the cosine), ``id``, and the store's other columns, and ``error``: a query that cannot be
        read or embedded is one row with that and no neighbour.

    Raises
    ------
    UsageError
        If a query is nothing that this store can be asked, or its vector is zero, not finite or of another length.
    SpecMismatchError
        If the backbone that loads is not the one that made the store's vectors.
    """
    wanted, reload_options, compute = build_options(OPTIONS, options)
    index = store if isinstance(store, SimilarityIndex) else SimilarityIndex(store, wanted.layer)
    queries = resolve(index, query, reload_options, compute, Progress(progress))
    return _neighbours(index, queries, wanted.k)


def _neighbours(index: SimilarityIndex, queries: list[Query], k: int) -> pa.Table:
    """Search, and join the neighbours' rows of the store."""
    asked = [query.vector for query in queries if query.vector is not None]
    # One more than asked for, as a query by id does not count itself.
    found = iter(zip(*index.search(np.stack(asked), k + 1), strict=True) if asked else ())
    schema = _schema(queries)
    text = schema.field("query_label").type == pa.string()
    rows: list[dict[str, Any]] = []
    for query in queries:
        label = str(query.label) if text and query.label is not None else query.label
        about = {"query": query.name, "query_uri": query.uri, "query_label": label, "error": query.error}
        about |= {"query_text": query.text} if "query_text" in schema.names else {}
        if query.vector is None:
            rows.append(about)
            continue
        scores, positions = next(found)
        others = positions != (-1 if query.row is None else query.row)
        pairs = zip(scores[others][:k].tolist(), positions[others][:k].tolist(), strict=True)
        rows += [{**about, "rank": i, "score": score, "row": row} for i, (score, row) in enumerate(pairs, 1)]
    return _joined(index, pa.Table.from_pylist(rows, schema=schema))


def _schema(queries: list[Query]) -> pa.Schema:
    kinds = {type(query.label) for query in queries} - {type(None)}
    labels = pa.array([query.label for query in queries]).type if len(kinds) == 1 else pa.string()
    texts = [(name, pa.string()) for name in ("query", "query_uri")]
    if any(query.text is not None for query in queries):
        texts.append(("query_text", pa.string()))
    numbers = [("rank", pa.int64()), ("score", pa.float64()), ("row", pa.int64())]
    return pa.schema([*texts, ("query_label", labels), *numbers, ("error", pa.string())])


def _joined(index: SimilarityIndex, found: pa.Table) -> pa.Table:
    """Put the store's columns in the place of row numbers."""
    ids = index.ids.take(found.column("row").combine_chunks())
    names = [name for name in index.store.data_columns if name != "id"]
    rows = index.store.table.rows(ids.unique().drop_null(), ["id", *names])
    where = pc.index_in(ids, value_set=rows.column("id").combine_chunks())
    columns = {name: found.column(name) for name in found.column_names if name not in ("row", "error")}
    stored = {name: rows.column(name).take(where) for name in names}
    # A metadata column may have the name of one of these, which then stands before it.
    return pa.table({**stored, **columns, "id": ids, "error": found.column("error")}).select(
        [*columns, "id", *(name for name in names if name not in {*columns, "error"}), "error"]
    )
