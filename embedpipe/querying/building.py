"""Building the saved index of a store, and taking changes of the store into it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe._utils.atomic import check_writable
from embedpipe._utils.option_names import option
from embedpipe._utils.progress import Progress
from embedpipe.backbones.spec import LayerSpec
from embedpipe.errors import UsageError
from embedpipe.neighbours import NearRows, faiss_alone, make_cells, measure_recall, nearest_rows, normalised, tune
from embedpipe.neighbours.cells import BITS, add_rows, bytes_a_row, cell_count, padded_dim, unevenness
from embedpipe.neighbours.exact import Vectors
from embedpipe.querying.options import MOST_RECALL, IndexOptions
from embedpipe.querying.saved_index import MANIFEST, METRIC, Figures, Manifest, SavedIndex, move_to_version, write_index
from embedpipe.report.drawing.wording import counted
from embedpipe.store import FeatureStore
from embedpipe.store.data_files import index_folder

#: Numbers of neighbours for which probes are chosen; the recall that is reported is that of the first.
NEIGHBOURS = (10, 100)
#: Bytes of a row in the file of keys.
KEY_BYTES = 24
#: An index is built anew if a larger share of its rows changed, or its cells became more uneven by this factor.
MOST_CHANGED, MOST_UNEVEN = 0.25, 2.0
#: Number of queries whose times are measured: one by one, one by one exactly, and as a batch.
TIMED = (30, 3, 1000)

Keys = npt.NDArray[np.int64]


def build_index(
    store: FeatureStore, layers: tuple[LayerSpec, ...], vectors: Vectors, options: IndexOptions, show: Progress
) -> SavedIndex:
    """Build the index of a store, save and open it; see `SimilarityIndex.build`."""
    if len(layers) > 1:
        raise UsageError(f"an index holds one layer, got {option('layer', '+'.join(each.name for each in layers))}")
    folder = index_folder(store.path)
    if folder is None:
        raise UsageError(f"an index needs a store on a local disk, got {store.path!r}")
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{str(folder)!r} must be the folder of an index, or not exist: move it elsewhere")
    check_writable(folder / MANIFEST)
    bits = _choose_bits(len(store), layers[0].dim, options)
    start = time.perf_counter()
    with show.step("dividing rows into cells", len(store), "rows") as advance:
        cells = make_cells(vectors, METRIC, bits, advance=advance)
    with show.step("choosing how many cells to search", None, "trials") as advance:
        tuning, recall = tune(vectors, METRIC, cells, options.recall, NEIGHBOURS, advance=advance)
    seconds = time.perf_counter() - start
    if recall.mean < options.recall:
        raise UsageError(
            f"a recall of {option('recall', options.recall)} cannot be reached with {bits} bits per value: it is "
            f"{recall.mean:.3f}. Give more {option('memory')}"
        )
    figures = _time(NearRows(vectors, METRIC, cells, tuning), seconds)
    values = {
        "table": store.table_id,
        "version": store.version,
        "fingerprint": store.spec.only(layers[0].name).fingerprint(),
        "layer": layers[0].name,
        "dim": layers[0].dim,
        "metric": METRIC,
        "rows": len(store),
        "next_key": len(store),
        "built_rows": len(store),
        "changed": 0,
        "cells": int(cells.nlist),
        "unevenness": unevenness(cells),
        "target": options.recall,
        "memory": options.memory_bytes,
        "bits": bits,
        "tuning": tuning,
        "recall": recall,
        "figures": figures,
    }
    return write_index(store, values, cells, np.arange(len(store)))


def update_index(
    store: FeatureStore,
    layers: tuple[LayerSpec, ...],
    vectors: Vectors,
    saved: SavedIndex,
    rows: tuple[Keys, Keys],
    show: Progress,
) -> SavedIndex:
    """Take the changes of a store into its index, or build it anew; see `SimilarityIndex.update`."""
    row_of, loose = rows
    manifest = saved.manifest
    removed = saved.keys[row_of[saved.keys] < 0]
    if not len(loose) and not len(removed):
        return saved if manifest.version == store.version else move_to_version(saved, store)

    def rebuild(why: str) -> SavedIndex:
        show.say(f"the index of {store.path!r} is built anew: {why}")
        memory = None if manifest.memory is None else str(manifest.memory)
        return build_index(store, layers, vectors, IndexOptions(min(manifest.target, MOST_RECALL), memory), show)

    changed = manifest.changed + len(loose) + len(removed)
    if changed > MOST_CHANGED * manifest.built_rows:
        return rebuild(f"{counted(changed, 'row')} of {manifest.built_rows:,} were added or removed since it was built")
    cells = saved.changeable_cells()
    with faiss_alone() as faiss:
        cells.remove_ids(faiss.IDSelectorBatch(removed))
    keys = manifest.next_key + np.arange(len(loose))
    add_rows(cells, vectors, loose, keys, METRIC)
    row_of = np.concatenate([row_of, loose])
    if unevenness(cells) > MOST_UNEVEN * manifest.unevenness:
        return rebuild("its cells became twice as uneven")
    search = NearRows(vectors, METRIC, cells, manifest.tuning, row_of)
    k = min(manifest.recall.k, len(store) - 1)
    recall = measure_recall(search, vectors, METRIC, k, manifest.recall.rows, seed=store.version)
    if recall.at_least < min(manifest.target, manifest.recall.at_least):
        return rebuild(f"its recall fell to at least {recall.at_least:.3f}, and {manifest.target:g} was asked for")
    key_of = np.empty(len(store), np.int64)
    live = np.flatnonzero(row_of >= 0)
    key_of[row_of[live]] = live
    values = {field: getattr(manifest, field) for field in Manifest.__dataclass_fields__} | {
        "version": store.version,
        "rows": len(store),
        "next_key": len(row_of),
        "changed": changed,
        "recall": recall,
    }
    for name in ("format", "generation", "files"):
        del values[name]
    show.say(f"{counted(len(loose), 'row')} added to the index, {counted(len(removed), 'row')} removed")
    return write_index(store, values, cells, key_of)


def _choose_bits(rows: int, dim: int, options: IndexOptions) -> int:
    """Return the most bits per value with which an index is no larger than the limit."""
    limit = options.memory_bytes
    if limit is None:
        return BITS[0]
    sizes = {
        bits: rows * (bytes_a_row(dim, bits) + KEY_BYTES) + 4 * cell_count(rows) * padded_dim(dim) for bits in BITS
    }
    for bits, size in sizes.items():
        if size <= limit:
            return bits
    least = min(sizes.values())
    raise UsageError(
        f"{option('memory')} must be at least {least:,} bytes for {rows:,} vectors of {dim:,} values, got {limit:,}"
    )


def _time(search: NearRows, build_seconds: float) -> Figures:
    """Measure the times of searches for rows."""
    rows = search.rows
    drawn = np.random.default_rng(1).integers(0, len(rows), max(TIMED))
    queries = normalised(np.asarray(rows[np.sort(drawn)], np.float32))
    k = min(NEIGHBOURS[0], len(rows))

    def median(one: Callable[[Any], Any], count: int) -> float:
        return 1000 * float(np.median([_seconds(one, queries[at : at + 1]) for at in range(count)]))

    latency = median(lambda each: search.search(each, k), TIMED[0])
    exact = median(lambda each: nearest_rows(each, rows, k, METRIC), TIMED[1])
    batch = _seconds(lambda each: search.search(each, k), queries)
    return Figures(latency, exact, len(queries) / batch, build_seconds)


def _seconds(work: Callable[[Any], Any], argument: Any) -> float:
    start = time.perf_counter()
    work(argument)
    return time.perf_counter() - start
