"""`Neighbours`: what a search found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.importing import to_pandas
from embedpipe.querying.how import How

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Neighbours:
    """The neighbours of one or more queries, as `embedpipe.search` returns them.

    ``len`` and iteration are over the rows of ``table``. A notebook shows the queries and neighbours as pictures, or
    as the beginnings of texts.

    Attributes
    ----------
    table : pyarrow.Table
        One row per neighbour, by query and rank: ``query`` (str; the text itself for a text query), ``query_uri``,
        ``query_text`` (only where queries are texts: the beginning), ``query_label``, ``rank`` (int64, from 1),
        ``score`` (float64, the cosine), ``id``, the store's other columns without vectors, and ``error``. A query
        that cannot be read or embedded has one row, in which ``error`` says why and ``rank``, ``score`` and ``id``
        are null.
    store : str
        Path of the store that was searched.
    layer : str
        The layer whose vectors were compared; several are joined by ``+``.
    how : How
        How the neighbours were found: exactly, or with what recall.
    searched : int
        Number of rows among which they were looked for: all of the store that are not excluded,
        or those of them that pass ``where``.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from embedpipe.querying import How
    >>> table = pa.table({"query": ["a", "a"], "rank": [1, 2], "id": ["b", "c"], "error": pa.nulls(2, pa.string())})
    >>> neighbours = Neighbours(table, "photos.features", "features", How("exact"), searched=12)
    >>> neighbours
    Neighbours(queries=1, rows=2, failed=0, layer='features', how='exact', searched=12, store='photos.features')
    >>> [row["id"] for row in neighbours]
    ['b', 'c']
    """

    table: pa.Table
    store: str
    layer: str
    how: How
    searched: int

    @property
    def n_queries(self) -> int:
        """Number of queries, those that failed included; one for which there was no row to find has no row."""
        return int(pc.sum(pc.less_equal(pc.fill_null(self.table["rank"], 1), 1)).as_py() or 0)

    @property
    def failed(self) -> list[tuple[str, str]]:
        """The queries that could not be read or embedded: name and reason of each."""
        rows = self.table.filter(pc.is_valid(self.table["error"])).select(["query", "error"])
        return [(row["query"], row["error"]) for row in rows.to_pylist()]

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return one dict per row."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    def to_arrow(self) -> pa.Table:
        """Return ``table``."""
        return self.table

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame. Raises MissingExtraError if pandas is not installed."""
        return to_pandas(self.table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_pylist())

    def __repr__(self) -> str:
        return (
            f"Neighbours(queries={self.n_queries}, rows={len(self)}, failed={len(self.failed)}, "
            f"layer={self.layer!r}, how={str(self.how)!r}, searched={self.searched}, store={self.store!r})"
        )

    def _repr_html_(self) -> str:
        from embedpipe.report.pictures.neighbours_html import neighbours_html  # needs Pillow

        title = f"{self.n_queries:,} quer{'y' if self.n_queries == 1 else 'ies'} in {self.store}, layer {self.layer}"
        return neighbours_html(self.table, title)
