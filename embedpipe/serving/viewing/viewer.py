"""`Viewer`: a store as a page sees it: its newest rows, their selections, and what is computed in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedpipe.backbones.registry import modalities_of
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.errors import ConcurrentWriteError, EmbedpipeError, UsageError, suggest
from embedpipe.serving.base_app import GoneError
from embedpipe.serving.viewing.collection import Codes, Collection, Mask
from embedpipe.serving.viewing.findings import Finding, FoundRows
from embedpipe.serving.viewing.labels import Edit, labels_csv, write_values
from embedpipe.serving.viewing.layout import Layout
from embedpipe.serving.viewing.pictures import Pictures
from embedpipe.serving.viewing.predictions import CONFIDENCE, FITTED, PREDICTION, Predictions
from embedpipe.serving.viewing.searching import Query, Searcher
from embedpipe.serving.viewing.selection import Filter, Order, Selection, Selections, as_selection, order_rows
from embedpipe.store import FeatureStore
from embedpipe.store.opening import open_store
from embedpipe.store.schema import EXCLUDED

if TYPE_CHECKING:
    from embedpipe.heads import Head

#: Characters of a text on a tile, and of one that is shown alone.
SNIPPET, LONGEST_TEXT = 400, 20_000
PREDICTED = (PREDICTION, CONFIDENCE)


class Viewer:
    """A store, and what a page may ask of it. Safe to use from several threads.

    Parameters
    ----------
    store : FeatureStore
    searcher : Searcher
    edit : bool
        Whether labels may be changed.
    head : Head, optional
        Its predictions are shown.
    findings : FoundRows, optional
        They are shown, and acted on.
    """

    def __init__(
        self,
        store: FeatureStore,
        searcher: Searcher,
        edit: bool = False,
        head: Head | None = None,
        findings: FoundRows | None = None,
    ) -> None:
        self._store, self.searcher, self.edit = open_store(store, before="looking at them"), searcher, edit
        self._head, self.found = head, findings
        self.name = Path(store.path.rstrip("/")).name
        self._selections = Selections()
        self._lock = threading.Lock()
        self._open(Collection(store))

    def _open(self, collection: Collection) -> None:
        layout = Layout(lambda: np.asarray(self.searcher.index(collection).vectors[:]))
        self.predictions = None if self._head is None else Predictions(self._head)
        self._state = collection, Pictures(collection), layout

    def start(self) -> None:
        """Open the index, predict and compute the map in the background."""
        threading.Thread(target=self._prepare, args=(self.collection, self.predictions), daemon=True).start()

    def _prepare(self, collection: Collection, predictions: Predictions | None) -> None:
        with contextlib.suppress(EmbedpipeError, OSError):  # a search says why there is no index
            self.searcher.index(collection)
        if predictions is not None:
            predictions.add_to(collection)
            with self._lock:  # labels may have changed meanwhile
                _carry_over(collection, self.collection)
        self._state[2].start()

    @property
    def collection(self) -> Collection:
        """The rows that are shown."""
        return self._state[0]

    def refresh(self) -> Collection:
        """Take over what other processes have written to the store, and return its rows."""
        with self._lock:
            self._take_over()
        return self.collection

    def _take_over(self) -> None:
        newest, (old, _, layout) = FeatureStore(self._store.path), self._state
        if (newest.table_id, newest.version) == (old.store.table_id, old.version) or not len(newest):
            return
        collection = Collection(newest)
        if collection.key != old.key:
            self._open(collection)
            self.start()
            return
        _carry_over(old, collection)
        self._state = collection, Pictures(collection), layout

    def at(self, key: str) -> tuple[Collection, Pictures]:
        """Return the rows whose numbers a request uses. Raises GoneError if the store's items have changed."""
        collection, pictures, _ = self._state
        if key != collection.key:
            raise GoneError("the items of the store have changed: load the page again")
        return collection, pictures

    def row(self, collection: Collection, row: int) -> int:
        """Return a row number. Raises GoneError if there is no such row."""
        if not 0 <= row < len(collection):
            raise GoneError(f"row must be 0 to {len(collection) - 1}, got {row}")
        return row

    def mask(self, collection: Collection, filter: Filter) -> Mask | None:
        """Return the rows that satisfy a filter; None for all rows."""
        layout = self._state[2]
        return filter.mask(collection, layout.points if self._state[0] is collection else None)

    def layout(self, key: str) -> Layout:
        """Return the map of the rows, which is then computed. Raises GoneError as `at`."""
        self.at(key)
        layout = self._state[2]
        layout.start()
        return layout

    def select(self, collection: Collection, filter: Filter, near: str, order: Order, at: int) -> Selection:
        """Return the rows of a request in order.

        Parameters
        ----------
        near : str
            ``row:7`` or ``query:KEY``, whose neighbours are selected; empty for all rows.
        at : int
            The same number gives the same rows while somebody scrolls and labels change.
        """

        def make() -> Selection:
            mask = self.mask(collection, filter)
            kind, _, name = near.partition(":")
            if not kind:
                predicts = self.predictions is not None and CONFIDENCE in collection.added
                label = self.label if predicts else None
                return order_rows(collection, mask, order, label)
            if kind == "row" and name.isascii() and name.isdigit():
                row = self.row(collection, int(name[:12]))
                return as_selection(self.searcher.near_row(collection, row, mask))
            if kind == "query":
                return as_selection(self.searcher.near_query(collection, self.query(name), mask))
            raise UsageError(f"near must be row:NUMBER or query:KEY, got {near[:40]!r}")

        return self._selections.get((collection.key, filter, near, order, at), make)

    def query(self, key: str) -> Query:
        """Return a query. Raises GoneError if it is not kept any more."""
        if (query := self.searcher.query(key)) is None:
            raise GoneError("this search is not known any more: search again")
        return query

    def brief(self, collection: Collection, row: int) -> dict[str, Any]:
        """Return what a tile of the gallery shows."""
        added, wanted = collection.added, ("id", self.label, "text", EXCLUDED, *PREDICTED)
        names = [name for name in wanted if name in collection.table.column_names]
        values = collection.row(row, names)
        text = None if values.get("text") is None else str(values["text"])
        return {
            "row": row,
            "id": values["id"],
            "label": collection.label(self.label, row) if self.label in names else None,
            "text": None if text is None else text[:SNIPPET],
            "excluded": values.get(EXCLUDED),
            **{name: values[name] for name in PREDICTED if name in added},
        }

    def detail(self, collection: Collection, pictures: Pictures, row: int) -> dict[str, Any]:
        """Return all that is known of an item."""
        values = collection.row(row)
        text = pictures.text(row)[:LONGEST_TEXT] if collection.store.spec.modality == "text" else None
        predictions = self.predictions
        ready = predictions is not None and predictions.state == "ready"
        shares = predictions.probabilities(collection, row) if predictions is not None and ready else []
        return {"row": row, "id": values.pop("id"), "text": text, "values": values, "probabilities": dict(shares)}

    def codes(self, collection: Collection, column: str) -> Codes:
        """Return a column as codes. Raises UsageError if it has none."""
        if (codes := collection.codes(column)) is None:
            raise UsageError(f"no column to colour by {column[:100]!r}{suggest(column[:100], collection.coded())}")
        return codes

    def counts(self, collection: Collection, filter: Filter) -> dict[str, list[tuple[str | None, int]]]:
        """Return the rows of each class of each column, among those that satisfy the conditions on other columns."""
        counted = {}
        for name, codes in collection.coded().items():
            if codes.kind == "class":
                others = replace(filter, classes=tuple(each for each in filter.classes if each[0] != name))
                counted[name] = codes.counts(self.mask(collection, others))
        return counted

    def describe(self, collection: Collection) -> dict[str, Any]:
        """Return what the page needs to begin with."""
        spec = collection.store.spec
        columns = [
            {"name": name, "kind": codes.kind, "values": codes.values} for name, codes in collection.coded().items()
        ]
        return {
            "name": self.name,
            "rows": len(collection),
            "key": collection.key,
            "at": collection.version,
            "modality": spec.modality,
            "words": _takes_words(spec),
            "pictures": spec.modality == "image" and not spec.is_imported,
            "backbone": f"{spec.provider}/{spec.name}",
            "columns": columns,
            "edit": self.edit,
            "label": self.label,
            "head": self._describe_head(),
            "findings": [] if self.found is None else self.found.describe(collection),
        }

    @property
    def label(self) -> str:
        """The column whose values are set on the page."""
        return "label" if self.predictions is None else self.predictions.head.label

    def findings(self, collection: Collection, kind: str) -> list[Finding]:
        """Return the findings of a kind, the surest first. Raises UsageError if there are none."""
        found = {} if self.found is None else self.found.of(collection)
        if kind not in found:
            raise UsageError(f"no findings of the kind {kind[:40]!r}{suggest(kind[:40], found)}")
        return found[kind]

    def set_values(self, collection: Collection, edits: Sequence[Edit], excludes: bool = False) -> int:
        """Write labels, or why rows are excluded; return the store's version. Raises what `write_values` raises."""
        for edit in edits:
            self.row(collection, edit.row)
        with self._lock:
            collection, _ = self.at(collection.key)  # it may have been taken over anew meanwhile
            try:
                column = EXCLUDED if excludes else self.label
                return write_values(FeatureStore(self._store.path), collection, column, edits)
            except ConcurrentWriteError:
                self._take_over()
                raise

    def labels_csv(self) -> bytes:
        """Return the labels that were set by hand as a CSV file."""
        return labels_csv(FeatureStore(self._store.path), self.label)

    def _describe_head(self) -> dict[str, Any] | None:
        if self.predictions is None:
            return None
        head, ready = self.predictions.head, self.predictions
        has_order = CONFIDENCE in self.collection.added and head.task == "classification"
        return {
            "name": head.name,
            "label": head.label,
            "state": "computing" if ready.state == "ready" and PREDICTION not in self.collection.added else ready.state,
            "note": ready.note,
            "orders": ["uncertain", "wrong"] if has_order else [],
            "separator": head.label_separator if head.task == "multilabel" else None,
        }


def _carry_over(old: Collection, new: Collection) -> None:
    """Add what was predicted for a collection to another one of the same items, whose labels have changed."""
    if new is not old and new.key == old.key:
        added = old.added.intersection((PREDICTION, CONFIDENCE, FITTED))
        new.add_columns({name: old.table.column(name) for name in added})


def _takes_words(spec: BackboneSpec) -> bool:
    if spec.modality == "text" or spec.is_imported:
        return not spec.is_imported
    try:
        # A factory of the user's embeds photos or texts, and seldom both: which is known only once it has run.
        known = ("image",) if spec.provider == "python" else modalities_of(f"{spec.provider}/{spec.name}")
        return "text" in known
    except EmbedpipeError:  # a plug-in that is not installed here
        return False
