"""`Clusters`: the groups of a store's rows, as a table of rows, a table of groups, and a page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.report.drawing.wording import counted
from embedpipe.report.tables import write_table


@dataclass(frozen=True, eq=False, repr=False)
class Clusters:
    """Groups of rows that are near one another; what `embedpipe.clusters` returns.

    Attributes
    ----------
    table : pyarrow.Table
        One row per row of the store: ``id``, ``cluster`` (its name), ``share`` (of the nearest rows that are in the
        same cluster; below 0.5 the row lies between clusters).
    groups : pyarrow.Table
        One row per cluster, the largest first: ``cluster``, ``rows``, ``between`` (how many lie between clusters),
        ``words`` (list), ``representatives`` (ids, the most typical first), ``label`` (the most frequent one, null
        without labels), ``label_share`` (its share of the labelled rows).
    store : str
    agreement : dict of str to float
        ``ari`` (adjusted Rand index) and ``nmi`` (normalised mutual information) with the labels; empty without labels.
    notes : list of str
    seconds : float

    Examples
    --------
    >>> clusters = embedpipe.clusters("messages.features")
    >>> clusters.groups.column_names
    ['cluster', 'rows', 'between', 'words', 'representatives', 'label', 'label_share']
    >>> clusters.save("clusters.csv")
    []
    """

    table: pa.Table
    groups: pa.Table
    store: str
    agreement: dict[str, float]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def save(self, to: str | Path) -> list[str]:
        """Write the rows and their clusters as a table, which `embedpipe label` takes.

        Parameters
        ----------
        to : str or path-like
            The name ends in a suffix of `embedpipe.report.write_table`. The file is replaced.

        Returns
        -------
        list of str
            Remarks for people.

        Raises
        ------
        UsageError
            If the name has another suffix, or cannot be that of a file.
        """
        return write_table(self.table, to)

    def to_html(self, path: str | Path) -> Path:
        """Write the clusters as one HTML page with their most typical items.

        Raises
        ------
        UsageError
            If the name does not end in ``.html``.
        """
        from embedpipe.clustering.page import write_clusters_page

        return write_clusters_page(self.groups, vars(self), path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts, without the table of rows."""
        plain = {name: value for name, value in vars(self).items() if name not in ("table", "groups")}
        return {"rows": len(self.table), **plain, "clusters": self.groups.to_pylist()}

    def __len__(self) -> int:
        return int(self.groups.num_rows)

    def __repr__(self) -> str:
        return f"Clusters({counted(len(self), 'cluster')} of {counted(len(self.table), 'row')})"

    def _repr_html_(self) -> str:
        rows = self.groups.slice(0, 20).to_pylist()
        return html_table(repr(self), [(row["cluster"], f"{row['rows']:,}") for row in rows])
