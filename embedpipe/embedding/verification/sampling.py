"""Some items of a store embedded again, by one backbone or by several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedpipe._utils.config import usable_cores
from embedpipe._utils.progress import Advance
from embedpipe.backbones.backbone import Backbone
from embedpipe.decoding import payload_hash
from embedpipe.embedding.loop import Forwarder, LayerVectors
from embedpipe.errors import ItemError
from embedpipe.sources.opening import read_uri

#: An item's values by preprocessing, ready for the backbones; or why it has none.
PreparedValues = dict[Any, Any]
Missing = Literal["changed", "unreadable"]


@dataclass(frozen=True)
class Sample:
    """What came of embedding rows again.

    Parameters
    ----------
    rows : int64 array (n,)
        Positions of the rows that were embedded, in order.
    vectors : list of dict of str to float32 array (n, dim)
        Of each backbone, by column.
    changed, unreadable : int
        Rows whose items have other content by now, or could not be read and decoded.
    """

    rows: npt.NDArray[np.int64]
    vectors: list[LayerVectors]
    changed: int
    unreadable: int


def embed_sample(rows: pa.Table, backbones: Sequence[Backbone], advance: Advance) -> Sample:
    """Embed the items of a store's rows, batch by batch: read and prepared by threads, then each backbone in turn.

    Parameters
    ----------
    rows : pyarrow.Table
        With ``uri`` and ``content_hash``.
    backbones : sequence of Backbone
        Of the same items. Those of the same preprocessing share what is prepared.
    """
    forwards = [Forwarder(backbone.accelerated(rows.num_rows)) for backbone in backbones]
    preparers = {backbone.spec.preprocessing: backbone for backbone in backbones}
    counts = {"changed": 0, "unreadable": 0}
    kept: list[int] = []
    parts: list[list[LayerVectors]] = [[] for _ in backbones]

    def prepare(row: dict[str, Any]) -> PreparedValues | Missing:
        try:
            payload = read_uri(row["uri"], backbones[0].spec.modality)
            if payload_hash(payload) != row["content_hash"]:
                return "changed"
            return {recipe: backbone.prepare(payload).value for recipe, backbone in preparers.items()}
        except ItemError:
            return "unreadable"

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, rows.num_rows, size := backbones[0].usual_batch):
            found = list(pool.map(prepare, rows.slice(start, size).to_pylist()))
            batch = []
            for at, values in enumerate(found, start):
                if isinstance(values, str):
                    counts[values] += 1
                else:
                    kept.append(at)
                    batch.append(values)
            for forward, done in zip(forwards, parts, strict=True):
                if batch:
                    done.append(forward([values[forward.backbone.spec.preprocessing] for values in batch]))
            advance(len(found))
    vectors = [
        {name: np.concatenate([part[name] for part in done]) for name in done[0]} if done else {} for done in parts
    ]
    return Sample(np.array(kept, np.int64), vectors, **counts)
