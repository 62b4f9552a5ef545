"""What a map shows, whatever it is drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import StoreError
from embedpipe.neighbours.exact import Vectors
from embedpipe.report.drawing.colours import Colouring, colour_labels
from embedpipe.report.pictures.label_votes import MEANING, Doubt, find_doubts
from embedpipe.report.pictures.map_points import map_points
from embedpipe.store import FeatureStore
from embedpipe.store.scan import MAPPED_BYTES, layer_maps, read_layers


@dataclass(frozen=True)
class MapData:
    """The items of a map.

    Parameters
    ----------
    points : float32 array (n, 2)
        y upwards, in any unit.
    ids, uris, texts, labels : list of str or None, length n
        URIs are those of pictures. Labels are as the legend writes them.
    colouring : Colouring
    label : str or None
        The column of the labels; None if no item has one.
    doubts : list of Doubt
        Items whose label is likely wrong.
    title, facts, method : str
        Texts around the map.
    """

    points: npt.NDArray[np.float32]
    ids: list[str]
    uris: list[str | None]
    texts: list[str | None]
    labels: list[str | None]
    colouring: Colouring
    label: str | None
    doubts: list[Doubt]
    title: str
    facts: str
    method: str

    @property
    def classes(self) -> dict[str, npt.NDArray[np.int64]]:
        """The rows of each class that has a colour of its own."""
        labels = np.array(self.labels, object)
        named = {entry.name for entry in self.colouring.legend} & {name for name in self.labels if name is not None}
        return {name: np.flatnonzero((labels == name) & self.colouring.named) for name in sorted(named)}

    @property
    def doubts_note(self) -> str:
        """What the rings mean, or an empty text if there are none."""
        if not self.doubts:
            return ""
        count = "1 likely wrong label" if len(self.doubts) == 1 else f"{len(self.doubts):,} likely wrong labels"
        return f"Ringed: {count}: {MEANING}."


def gather(store: FeatureStore, label: str | None, layers: Sequence[LayerSpec], seed: int, show: Progress) -> MapData:
    """Read all rows, and project their vectors."""
    text = "text" if store.spec.modality == "text" and "text" in store.data_columns else None
    rows = store.to_arrow(list(dict.fromkeys(filter(None, ("id", "uri", label, text)))))
    with show.step("reading vectors"):
        vectors = _open_vectors(store, layers)
    points, method = map_points(vectors, seed, show)
    colouring = colour_labels(rows.column(label) if label else None, len(rows))
    labels = colouring.names
    is_class = bool(colouring.legend) and colouring.scale is None
    return MapData(
        points=points,
        ids=rows.column("id").to_pylist(),
        uris=rows.column("uri").to_pylist() if store.spec.modality == "image" else [None] * len(rows),
        texts=rows.column(text).to_pylist() if text else [None] * len(rows),
        labels=labels,
        colouring=colouring,
        label=label if colouring.named.any() else None,
        doubts=find_doubts(vectors, labels, show) if is_class else [],
        title=_title(store, label if colouring.named.any() else None),
        facts=_facts(store, layers),
        method=method,
    )


def _open_vectors(store: FeatureStore, layers: Sequence[LayerSpec]) -> Vectors:
    """Return the vectors in id order: an array, or a memory map if they are large."""
    if len(layers) == 1 and 4 * len(store) * layers[0].dim > MAPPED_BYTES:
        with suppress(StoreError):  # no room for a map
            return layer_maps(store.table, layers)[0].vectors
    return read_layers(store.table, layers)[1]


def _title(store: FeatureStore, label: str | None) -> str:
    total = len(store)
    items = "1 item" if total == 1 else f"{total:,} items"
    return f"{Path(store.path).name}: {items}" + (f" by {label}" if label else "")


def _facts(store: FeatureStore, layers: Sequence[LayerSpec]) -> str:
    spec = store.spec
    return "  ·  ".join(
        (
            spec.title,
            f"layer {'+'.join(layer.name for layer in layers)}, {sum(layer.dim for layer in layers):,} dimensions",
            f"store version {store.version}",
        )
    )
