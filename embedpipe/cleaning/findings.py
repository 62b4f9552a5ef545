"""`Findings`: what `clean` found, as a table, a page and a list of rows to keep."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.notebook.html_tables import html_table
from embedpipe.cleaning.kinds import KINDS
from embedpipe.report.drawing.wording import counted
from embedpipe.report.tables import is_page, write_table
from embedpipe.store.editing.labelling import as_text


class Recorder:
    """Collects findings as rows of a table.

    Parameters
    ----------
    rows : pyarrow.Table
        The columns of the store, ``id`` among them.
    label : str
    split : array of str, optional
    """

    def __init__(self, rows: pa.Table, label: str, split: npt.NDArray[Any] | None) -> None:
        self._rows, self._label, self._split = rows, label, split
        self._found: list[dict[str, Any]] = []

    def add(
        self,
        kind: str,
        row: int,
        score: float,
        *,
        related: int | None = None,
        proposed: str | None = None,
        elsewhere: str | None = None,
        how: str | None = None,
    ) -> None:
        """Add a finding on a row; ``related`` is another row, ``elsewhere`` one elsewhere, ``how`` they are alike."""
        self._found.append(
            {"kind": kind, "row": int(row), "score": float(score), "related": related, "proposed": proposed}
            | {"elsewhere": elsewhere, "how": how}
        )

    def table(self) -> pa.Table:
        """Return the findings, kind by kind in the order of `KINDS`, each with the surest first."""
        order = {kind: number for number, kind in enumerate(KINDS)}
        found = sorted(self._found, key=lambda each: (order[each["kind"]], -each["score"], each["row"]))
        at = pa.array([each["row"] for each in found], pa.int64())
        near = pa.array([None if each["related"] is None else int(each["related"]) for each in found], pa.int64())
        columns: dict[str, Any] = {
            "id": self._rows["id"].take(at),
            "kind": pa.array([each["kind"] for each in found], pa.string()),
            "score": pa.array([each["score"] for each in found], pa.float64()),
            "related": pc.coalesce(
                self._rows["id"].take(near), pa.array([each["elsewhere"] for each in found], pa.string())
            ),
            "how": pa.array([each["how"] for each in found], pa.string()),
        }
        if self._label in self._rows.column_names:
            labels = as_text(self._rows[self._label].combine_chunks())
            columns["label"], columns["related_label"] = labels.take(at), labels.take(near)
            proposed = pa.array([each["proposed"] for each in found], pa.string())
            # The label itself where no other is proposed: a table that is given back whole takes no label away.
            columns["proposed"] = pc.coalesce(proposed, columns["label"])
        if self._split is not None:
            names = pa.array(self._split.tolist(), pa.string())
            columns["split"], columns["related_split"] = names.take(at), names.take(near)
        for name in ("text", "uri"):
            if name in self._rows.column_names:
                columns[name] = self._rows[name].take(at)
                columns[f"related_{name}"] = self._rows[name].take(near)
        return pa.table(columns)


@dataclass(frozen=True, eq=False, repr=False)
class Findings:
    """What is likely to be wrong with the rows of a store; what `embedpipe.clean` returns.

    Attributes
    ----------
    table : pyarrow.Table
        One row per finding: ``id``, ``kind``, ``score`` (a cosine for duplicates, or the share of equal bits of their
        hashes; the doubt of a label error in (0, 1]; robust standard deviations for outliers), ``related`` (the id of
        the other row), ``how`` (of duplicates: exact, near or mirrored), ``label``, ``related_label``, ``proposed``,
        ``split``, ``related_split``, ``text``, ``uri``, as far as the store has them.
    store : str
    label : str
    rows : int
        Rows of the store.
    confused : list of (str, str, int)
        Label, proposed label, and the number of label errors of this pair.
    recall : float
        Share of the nearest neighbours that the graph has; 1 if all rows were compared.
    notes : list of str
    seconds : float

    Examples
    --------
    >>> findings = embedpipe.clean("photos.features")
    >>> findings.to_html("findings.html")
    PosixPath('findings.html')
    >>> findings.keep().column_names
    ['id', 'excluded']
    """

    table: pa.Table
    store: str
    label: str
    rows: int
    confused: list[tuple[str, str, int]]
    recall: float
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind."""
        counts = Counter(self.table["kind"].to_pylist())
        return {kind: counts[kind] for kind in KINDS}

    def keep(self) -> pa.Table:
        """Return all ids of the store, and in ``excluded`` why a row is not kept; an empty text for one that is.

        `embedpipe label` and `FeatureStore.exclude` take this table. What is excluded already stays so.

        Of copies of one another one is kept: of a leak a row that is not a training row, then the picture with the
        most pixels, then the one with the largest file, as copies are often smaller, then the one with the shortest
        id, as names of copies are often longer. Doubtful labels and outliers are kept: look at them.
        """
        from embedpipe.cleaning.originals import keep_originals
        from embedpipe.store import FeatureStore

        return keep_originals(self.table, FeatureStore(self.store))

    def save(self, to: str | Path) -> list[str]:
        """Write the findings as a page or a table.

        Parameters
        ----------
        to : str or path-like
            The name ends in ``.html``, or in a suffix of `embedpipe.report.write_table`. The file is replaced.

        Returns
        -------
        list of str
            Remarks for people.

        Raises
        ------
        UsageError
            If the name has another suffix, or cannot be that of a file.
        """
        if is_page(to):
            self.to_html(to)
            return []
        return write_table(self.table, to)

    def to_html(self, path: str | Path) -> Path:
        """Write the findings as one HTML page with the items side by side, of less than 20 MB.

        Raises
        ------
        UsageError
            If the name does not end in ``.html``.
        """
        from embedpipe.cleaning.page import write_findings_page

        return write_findings_page(self.table, vars(self) | {"counts": self.counts}, path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        plain = {name: value for name, value in vars(self).items() if name != "table"}
        return {**plain, "counts": self.counts, "findings": self.table.to_pylist()}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        found = ", ".join(f"{kind}: {count}" for kind, count in self.counts.items() if count) or "nothing"
        return f"Findings({counted(self.rows, 'row')}; {found})"

    def _repr_html_(self) -> str:
        return html_table(f"Findings in {counted(self.rows, 'row')}", {k: f"{n:,}" for k, n in self.counts.items()})
