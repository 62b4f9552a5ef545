"""Which rows a page shows, and in which order: the parameters of a request become positions of rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.option_names import fixed_options
from embedpipe.errors import UsageError, suggest
from embedpipe.querying import rows_where
from embedpipe.serving.viewing.collection import Collection, Mask
from embedpipe.serving.viewing.predictions import CONFIDENCE, FITTED, PREDICTION
from embedpipe.serving.viewing.searching import Nearest

Rows = npt.NDArray[np.int64]
#: ``id``, at random, of a head: those that it is least certain of, and its most confident mistakes.
Order = Literal["id", "random", "uncertain", "wrong"]
#: Selections that are kept, as scrolling asks for the same one again and again.
MOST_KEPT = 16


@dataclass(frozen=True)
class Filter:
    """What rows must satisfy.

    Attributes
    ----------
    where : str
        An expression over the columns; empty for all rows.
    classes : tuple of (str, tuple of (str or None))
        Of each column named, the values of which one must hold.
    within : tuple of float
        Corners of a polygon on the map, x and y in turn.
    """

    where: str = ""
    classes: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    within: tuple[float, ...] = ()

    @classmethod
    def parse(cls, where: str, classes: str, within: str) -> Filter:
        """Return the filter of a request. Raises UsageError."""
        try:
            named = parse_json(classes or "{}")
            chosen = tuple((name, tuple(values)) for name, values in named.items())
            corners = tuple(float(part) for part in within.split(",")) if within else ()
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                f'classes must be a JSON object such as {{"label": ["cat"]}}, and within numbers: {error}'
            ) from error
        if any(not isinstance(value, str | None) for _, values in chosen for value in values):
            raise UsageError("classes must hold lists of texts or null")
        if len(corners) % 2 or (corners and len(corners) < 6) or not all(map(np.isfinite, corners)):
            raise UsageError("within must hold the x and y of at least three corners")
        return cls(where.strip(), chosen, corners)

    def mask(self, collection: Collection, points: npt.NDArray[np.float32] | None) -> Mask | None:
        """Return the rows that satisfy all conditions; None for all rows."""
        with fixed_options("where"):  # the box of the page, which is no option of `view`
            masks = [rows_where(collection.store, self.where, collection.table)] if self.where else []
        for name, values in self.classes:
            codes = collection.codes(name)
            if codes is None or codes.kind != "class":
                known = [each for each, found in collection.coded().items() if found.kind == "class"]
                raise UsageError(f"no column of classes {name!r}{suggest(name, known)}")
            place = {value: code for code, value in enumerate(codes.values)}
            chosen = [-1 if value is None else place.get(value, -2) for value in values]
            masks.append(np.isin(codes.codes, chosen))
        if self.within:
            if points is None:
                raise UsageError("the map is not ready")
            masks.append(_inside(points, np.array(self.within).reshape(-1, 2)))
        return np.logical_and.reduce(masks) if masks else None


def _inside(points: npt.NDArray[np.float32], corners: npt.NDArray[np.float64]) -> Mask:
    from matplotlib.path import Path

    low, high = corners.min(axis=0), corners.max(axis=0)
    inside: Mask = ((points >= low) & (points <= high)).all(axis=1)  # False where a point is NaN
    near = np.flatnonzero(inside)
    inside[near] = Path(corners).contains_points(points[near])
    return inside


@dataclass(frozen=True)
class Selection:
    """Rows in the order in which they are shown; scores and how they were found if they are those of a search."""

    rows: Rows
    scores: npt.NDArray[np.float64] | None = None
    how: str = ""


class Selections:
    """The last selections, by what was asked for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, Selection] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], Selection]) -> Selection:
        """Return the selection of a key, made on first use."""
        with self._lock:
            if (known := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return known
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made


def order_rows(collection: Collection, mask: Mask | None, order: Order, label: str | None) -> Selection:
    """Return the rows of a mask in an order. ``label`` is the column that a head predicts, None without one.

    Raises UsageError for an order that needs predictions and has none.
    """
    rows = np.arange(len(collection)) if mask is None else np.flatnonzero(mask)
    if order == "id":
        return Selection(rows)
    if order == "random":
        return Selection(np.random.default_rng(0).permutation(rows))
    added, table = collection.added, collection.table
    if label is None or CONFIDENCE not in added:
        raise UsageError(f"order {order!r} needs predicted classes: give a head of classes, and wait for it")
    confidence = np.asarray(table.column(CONFIDENCE).to_numpy(), np.float64)
    known = np.isfinite(confidence[rows])
    if FITTED in added:  # a head is sure of what it has seen
        known &= np.asarray(pc.not_equal(table.column(FITTED), "yes"))[rows]
    if order == "wrong":
        known &= wrong_rows(collection, label)[rows]
    rows = rows[known]
    keys = confidence[rows] if order == "uncertain" else -confidence[rows]
    return Selection(rows[np.argsort(keys, kind="stable")])


def wrong_rows(collection: Collection, label: str) -> Mask:
    """Return the rows with a label that is not the predicted one."""
    texts = [collection.table.column(name).cast(pa.string()) for name in (label, PREDICTION)]
    wrong: Mask = np.asarray(pc.fill_null(pc.not_equal(*texts), False).to_numpy(), bool)
    return wrong


def as_selection(nearest: Nearest) -> Selection:
    """Return the selection of a search."""
    return Selection(nearest.rows, nearest.scores, nearest.how)
