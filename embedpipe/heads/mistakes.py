"""`Mistakes`: the held-out rows that a head predicts wrongly, as a table and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.notebook.html_tables import html_records
from embedpipe._utils.option_names import option
from embedpipe._utils.version import __version__
from embedpipe.errors import UsageError
from embedpipe.heads.held_out import wrong_rows
from embedpipe.heads.options import Task
from embedpipe.report.drawing.wording import number
from embedpipe.report.tables import is_page, write_table
from embedpipe.store import FeatureStore

if TYPE_CHECKING:
    from embedpipe.report.wrong_items import WrongItem

#: Number of confused pairs of classes on the page, and of rows in a notebook.
MAX_PAIRS, MAX_ROWS = 12, 20


@dataclass(frozen=True, eq=False, repr=False)
class Mistakes:
    """The held-out rows that a head predicts wrongly, the surest prediction first; `Head.mistakes` returns it.

    Attributes
    ----------
    table : pyarrow.Table
        One row per mistake: ``id``, ``actual``, ``predicted``; for classes ``confidence`` (the probability of the
        predicted class, if the head has probabilities), ``second`` (the most probable other class) and ``margin``
        (their difference); for numbers ``residual`` (``actual`` minus ``predicted``, the largest first); ``text``, if
        the store has texts; ``uri``.
    head, label, protocol : str
        Name of the head, the column that was learned, and how the rows were held out.
    task : str
    rows : int
        Number of held-out rows, the right ones included.

    Examples
    --------
    >>> mistakes = embedpipe.fit("photos.features", "lda").mistakes()
    >>> mistakes.table.column_names
    ['id', 'actual', 'predicted', 'confidence', 'second', 'margin', 'uri']
    >>> mistakes.save("mistakes.html")
    []
    """

    table: pa.Table
    head: str
    label: str
    protocol: str
    task: Task
    rows: int

    def save(self, to: str | Path) -> list[str]:
        """Write the rows as a page of pictures or texts with links to their files, or as a table.

        Parameters
        ----------
        to : str or path-like
            The name ends in ``.html``, for one file of less than 20 MB that needs no network, or in a suffix of
            `embedpipe.report.write_table`. The file is replaced.

        Returns
        -------
        list of str
            Remarks for people.

        Raises
        ------
        UsageError
            If the name has another suffix, or cannot be that of a file.
        MissingExtraError
            If the name ends in ``.xlsx``, and openpyxl is not installed.
        """
        if not is_page(to):
            return write_table(self.table, to)
        from embedpipe.report.page import write_page  # needs Jinja
        from embedpipe.report.wrong_items import show_wrong_items

        pairs = Counter(zip(*(self._texts(name) for name in ("actual", "predicted")), strict=True))
        facts = {
            "mistakes": self,
            "wrong": show_wrong_items(self._items(), Path(to)),
            "pairs": pairs.most_common(MAX_PAIRS) if self.task == "classification" else [],
            "other_pairs": max(0, len(pairs) - MAX_PAIRS),
            "version": __version__,
            "now": datetime.now().astimezone(),
        }
        write_page("mistakes.html", facts, Path(to))
        return []

    def _texts(self, name: str) -> list[str]:
        values = self.table[name].to_pylist()
        return [number(value) if self.task == "regression" else str(value) for value in values]

    def _items(self) -> Sequence[WrongItem]:
        from embedpipe.report.wrong_items import WrongItem

        known = self.table.column_names
        nothing = [None] * len(self)
        ids, uris, texts, probabilities = (
            self.table[name].to_pylist() if name in known else nothing for name in ("id", "uri", "text", "confidence")
        )
        columns = (ids, uris, self._texts("actual"), self._texts("predicted"), probabilities, texts)
        return [WrongItem(*row) for row in zip(*columns, strict=True)]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Mistakes(head={self.head!r}, wrong={len(self)}, rows={self.rows}, protocol={self.protocol!r})"

    def _repr_html_(self) -> str:
        rows = self.table.slice(0, MAX_ROWS).to_pylist()
        title = f"{len(self):,} of {self.rows:,} held-out rows are wrong, {self.head}, {self.protocol}"
        if "text" in self.table.column_names or not rows or rows[0]["uri"] is None:
            return html_records(title, rows)
        from embedpipe.report.pictures.neighbours_html import gallery_html  # needs Pillow

        items = []
        for row, actual, predicted in zip(rows, self._texts("actual"), self._texts("predicted"), strict=False):
            sure = row.get("confidence")
            remark = f"{actual}, predicted {predicted}" + (f" ({sure:.3f})" if sure is not None else "")
            items.append((row["id"], row["uri"], remark))
        return gallery_html(items, len(self), title)


def find_mistakes(
    held_out: pa.Table | None, store: str, version: int, *, head: str, label: str, protocol: str, task: Task
) -> Mistakes:
    """Return the wrong rows of held-out predictions, with the texts and locations of their items."""
    if held_out is None or not held_out.num_rows:
        reason = (
            "held-out predictions are not saved in a head: fit it again"
            if held_out is None
            else f"the head was not measured on held-out rows: fit it with {option('folds', 5)}, or with a test split"
        )
        raise UsageError(f"mistakes are those on held-out rows, and {reason}")
    wrong = wrong_rows(held_out, task)
    opened = FeatureStore(store, version)
    names = ["id", *(["text"] if opened.spec.modality == "text" and "text" in opened.data_columns else []), "uri"]
    ids = wrong["id"].combine_chunks()
    items = opened.table.rows(ids, names)
    items = items.take(pc.index_in(ids, value_set=items["id"].combine_chunks()))
    for name in names[1:]:
        wrong = wrong.append_column(name, items[name])
    return Mistakes(wrong, head, label, protocol, task, held_out.num_rows)
