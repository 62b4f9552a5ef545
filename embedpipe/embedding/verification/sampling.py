"""Embedding a sample of the items of a store again, with one or several backbones."""

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

#: Prepared values of an item by preprocessing, and the reasons for an item without them.
PreparedValues = dict[Any, Any]
Missing = Literal["changed", "unreadable"]


@dataclass(frozen=True)
class Sample:
    """Vectors of rows that were embedded again.

    Parameters
    ----------
    rows : int64 array (n,)
        Positions of the embedded rows, ascending.
    vectors : list of dict of str to float32 array (n, dim)
        Vectors of each backbone by column.
    changed, unreadable : int
        Number of rows whose item has changed, or cannot be read and decoded.
    """

    rows: npt.NDArray[np.int64]
    vectors: list[LayerVectors]
    changed: int
    unreadable: int


def embed_sample(rows: pa.Table, backbones: Sequence[Backbone], advance: Advance) -> Sample:
    """Embed the items of rows of a store batch by batch. Threads read and prepare, then each backbone embeds by torch.

    No faster engine is chosen, as a check must not rely on the network in the cache that made the vectors. Only int8
    has no other engine.

    Parameters
    ----------
    rows : pyarrow.Table
        Rows with ``uri`` and ``content_hash``.
    backbones : sequence of Backbone
        Backbones with the same preprocessing share the prepared values.
    """
    forwards = [Forwarder(backbone) for backbone in backbones]
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
            prepared = list(pool.map(prepare, rows.slice(start, size).to_pylist()))
            batch = []
            for at, values in enumerate(prepared, start):
                if isinstance(values, str):
                    counts[values] += 1
                else:
                    kept.append(at)
                    batch.append(values)
            for forward, done in zip(forwards, parts, strict=True):
                if batch:
                    done.append(forward([values[forward.backbone.spec.preprocessing] for values in batch]))
            advance(len(prepared))
    vectors = [
        {name: np.concatenate([part[name] for part in done]) for name in done[0]} if done else {} for done in parts
    ]
    return Sample(np.array(kept, np.int64), vectors, **counts)
