"""The verbs that write: what each starts from, what it does, and what is stored before, between and after."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from coloured import colours
from conftest import write_photo
from damage.specimens import BENCHMARK, FAST, TINY, digest
from stored import clusters, make_store

import embedpipe
from embedpipe.embedding.writing import writer
from embedpipe.errors import BusyError, EmbedpipeError, StoreError, StoreNotFoundError, UsageError

State = dict[str, str]


@dataclass(frozen=True)
class Verb:
    """A verb that writes.

    Parameters
    ----------
    prepare, run : callable
        Make what it starts from in an empty folder, and run it there.
    state : callable
        What is stored: name -> digest. After a kill each name has the value from before or from after.
    full : bool
        Whether the verb fails on a full disk; what is only a cache need not.
    """

    prepare: Callable[[Path], Any]
    run: Callable[[Path], Any]
    state: Callable[[Path], State]
    full: bool = True


def prepare(name: str, folder: str) -> None:
    """Make what a verb starts from."""
    VERBS[name].prepare(Path(folder))


def run(name: str, folder: str, shim: bool = False, last: int = 0, mode: int = 0) -> int:
    """Run a verb, and return its calls that change files. Counting starts here."""
    if shim:
        arm(folder, last, mode)
    VERBS[name].run(Path(folder))
    return calls() if shim else 0


def run_full(name: str, folder: str, last: int) -> str:
    """Run a verb on a disk that is full from a call on, and return its error; empty if it succeeds."""
    arm(folder, last, FULL)
    try:
        VERBS[name].run(Path(folder))
    except EmbedpipeError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        arm("/nowhere", 0, COUNT)
    return ""


def state(name: str, folder: str) -> State:
    """Return what is stored."""
    return VERBS[name].state(Path(folder))


COUNT, KILL, FULL = 0, 1, 2


def arm(folder: str, last: int, mode: int) -> None:
    """Let the shim count, kill at a call, or fail from a call on, below a folder."""
    import ctypes

    library = ctypes.CDLL(None)
    library.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]
    library.shim_arm(os.fsencode(folder), last, mode)


def calls() -> int:
    """Return how many calls the shim has counted."""
    import ctypes

    library = ctypes.CDLL(None)
    library.shim_calls.restype = ctypes.c_long
    return int(library.shim_calls())


# Stores: rows by id. An id that is there twice is an error.


def _store(folder: Path) -> State:
    try:
        store = embedpipe.FeatureStore(folder / "store")
    except StoreNotFoundError:
        return {}
    rows = store.to_arrow()
    ids = rows.column("id").to_pylist()
    assert len(ids) == len(set(ids)), "an id is there twice"
    result = {row["id"]: digest({k: v for k, v in row.items() if v is not None}) for row in rows.to_pylist()}
    assert np.isfinite(store.to_numpy()).all()
    return result | {f"failed {row['id']}": row["message"] for row in store.failures().to_pylist()}


def _labelled(folder: Path) -> None:
    make_store(folder / "store", clusters(30)[0], label=["abc"[i % 3] for i in range(30)])


def _in_files(folder: Path) -> None:
    """Make a store of many small files, and of old ones that no version needs."""
    _labelled(folder)
    store = embedpipe.FeatureStore(folder / "store")
    for i in range(5):
        store.label(pa.table({"id": [f"row-{i:03d}"], "label": ["z"]}))
        rows = store.refresh().to_arrow().slice(i, 1)
        store.write(rows.set_column(0, "id", pa.array([f"new-{i}"])))


def _forget(folder: Path) -> None:
    with contextlib.suppress(UsageError):  # nothing is left to forget
        try:
            embedpipe.forget(folder / "store", ["row-003", "new-2"])
        except BusyError:  # a kill left part of a file, as a process would that still writes it: wait for an hour
            for file in (folder / "store").glob("*.parquet"):
                os.utime(file, (0, 0))
            embedpipe.forget(folder / "store", ["row-003", "new-2"])


def _damaged(folder: Path) -> None:
    """Cut off the last entry of the log, as a power cut does."""
    _in_files(folder)
    entry = max((folder / "store" / "_delta_log").glob("*.json"))
    entry.write_bytes(entry.read_bytes()[:-40])


def _readable(folder: Path) -> State:
    try:
        return _store(folder)
    except StoreError as error:
        if "embedpipe repair" not in str(error):
            raise
        return {}


def _photos(folder: Path) -> Path:
    colours(folder / "photos", 30)
    (folder / "photos" / "broken.png").write_bytes(b"no picture")
    return folder / "photos"


def _embed(folder: Path, **options: Any) -> None:
    writer.FLUSH_ROWS, writer.FLUSH_PAUSE = 8, 0
    embedpipe.embed(
        folder / "photos", folder / "store", backbone=TINY, batch_size=4, engine="torch", progress=False, **options
    )


def _embedded(folder: Path) -> None:
    _photos(folder)
    _embed(folder)


def _changed(folder: Path) -> None:
    _embedded(folder)
    photos = sorted((folder / "photos").rglob("*.png"))
    for path in photos[:6]:
        path.unlink()
    for i, path in enumerate(photos[8:12]):
        write_photo(path.with_suffix(".png"), seed=100 + i)


def _set_labels(folder: Path) -> None:
    embedpipe.FeatureStore(folder / "store").label(
        pa.table({"id": [f"row-{i:03d}" for i in range(0, 30, 2)], "label": ["new"] * 15})
    )


# Heads and runs: there or not.


def _head(folder: Path) -> State:
    if not (folder / "head").exists():
        return {}
    head = embedpipe.load_head(folder / "head")
    return {"head": digest([repr(head), head.estimator.predict(clusters(9)[0]), head.name])}


def _fit(head: str) -> Callable[[Path], Any]:
    return lambda folder: embedpipe.fit(folder / "store", head, to=folder / "head")


def _fitted(folder: Path) -> None:
    _labelled(folder)
    embedpipe.fit(folder / "store", "ridge", to=folder / "head")


def _finetune(folder: Path) -> None:
    embedpipe.finetune(folder / "store", to=folder / "run", **FAST)


def _run(folder: Path) -> State:
    if not (folder / "run" / "result.json").exists():
        return {}
    weights = hashlib.sha256((folder / "run" / "backbone.safetensors").read_bytes()).hexdigest()
    return {"run": digest([weights, embedpipe.load_head(folder / "run" / "head").report])}


def _benchmark(folder: Path) -> None:
    embedpipe.benchmark(folder / "store", to=folder / "run", **FAST, **BENCHMARK)


def _cells(folder: Path) -> State:
    import json

    result = {}
    for path in sorted((folder / "run" / "cells").glob("*.json")):
        cell = json.loads(path.read_text())["cell"]
        result[path.name] = digest([cell["accuracy"], cell["correct"]])
    return result


def _with_cache(folder: Path, read: Callable[[], Any]) -> Any:
    os.environ["EMBEDPIPE_CACHE"] = str(folder / "cache")
    return read()


def _map(folder: Path) -> None:
    _with_cache(folder, lambda: embedpipe.FeatureStore(folder / "store").mapped())


def _mapped(folder: Path) -> State:
    return {"map": _with_cache(folder, lambda: digest(np.array(embedpipe.FeatureStore(folder / "store").mapped())))}


def _evaluate(folder: Path) -> Any:
    options: Mapping[str, Any] = {"heads": ["ridge"], "repeats": 1, "near_duplicates": "off"}
    return _with_cache(folder, lambda: embedpipe.evaluate([embedpipe.FeatureStore(folder / "store")], **options))


VERBS: dict[str, Verb] = {
    "embed": Verb(_photos, _embed, _store),
    "embed and prune": Verb(_changed, lambda folder: _embed(folder, prune=True), _store),
    "label": Verb(_labelled, _set_labels, _store),
    "compact": Verb(_in_files, lambda folder: embedpipe.FeatureStore(folder / "store").compact(), _store),
    "vacuum": Verb(  # which only deletes
        _in_files,
        lambda folder: embedpipe.FeatureStore(folder / "store").vacuum(older_than_hours=0),
        _store,
        full=False,
    ),
    "forget": Verb(_in_files, _forget, _store),
    "repair": Verb(_damaged, lambda folder: embedpipe.repair(folder / "store"), _readable),
    "fit": Verb(_fitted, _fit("logreg"), _head),
    "fit knn": Verb(_fitted, _fit("knn"), _head),
    "finetune": Verb(_embedded, _finetune, _run),
    "benchmark": Verb(_embedded, _benchmark, _cells),
    "map": Verb(_labelled, _map, _mapped),
    "evaluate": Verb(
        _labelled, _evaluate, lambda folder: {"result": digest(_evaluate(folder).predictions)}, full=False
    ),
}
