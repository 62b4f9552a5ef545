"""Processes that write one store at the same time, each until a given moment, and log what was committed.

Run as ``python -m interrupted.writers ROLE NUMBER FOLDER SECONDS``, with ``tests`` on the path.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from conftest import write_photo
from damage.specimens import TINY

import embedpipe
from embedpipe.errors import ConcurrentWriteError, StoreError
from embedpipe.store.schema import vector_column

#: Roles and how many processes have each.
ROLES = {"write": 3, "prune": 1, "label": 1, "compact": 1, "vacuum": 1, "read": 1}


def vector_of(id: str) -> npt.NDArray[np.float32]:
    """Return the vector that belongs to an id."""
    return np.random.default_rng([*id.encode()]).standard_normal(12).astype(np.float32)


def start(folder: Path) -> None:
    """Make the store, of twelve pictures."""
    for i in range(12):
        write_photo(folder / "photos" / f"{i}.jpg", seed=i)
    store = embedpipe.embed(folder / "photos", folder / "store", backbone=TINY, engine="torch", progress=False)
    store.label(pa.table({"id": ["0.jpg"], "label": ["a photo"]}))


def run_all(folder: Path, seconds: float) -> list[str]:
    """Run all roles at once, and return what was wrong at the end."""
    start(folder)
    command = [sys.executable, "-W", "ignore", "-m", "interrupted.writers"]
    tests = str(Path(__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))}
    processes = {}
    for role, number in ((role, number) for role, count in ROLES.items() for number in range(count)):
        with (folder / f"{role}{number}.err").open("w") as errors:
            arguments = [*command, role, str(number), str(folder), str(seconds)]
            processes[role, number] = subprocess.Popen(arguments, stderr=errors, env=variables)
    codes = {key: process.wait(seconds + 300) for key, process in processes.items()}
    wrong = [
        f"{role} {number}: {(folder / f'{role}{number}.err').read_text()[-800:]}"
        for (role, number), code in codes.items()
        if code
    ]
    return wrong + check(folder)


def logged(folder: Path, name: str) -> list[Any]:
    """Return what a process has logged."""
    path = folder / f"{name}.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(folder: Path) -> list[str]:
    """Compare the store with what was committed."""
    store = embedpipe.FeatureStore(folder / "store")
    ids, X = store.ids(), store.to_numpy()
    wrong = [] if len(ids) == len(set(ids)) else [f"{len(ids) - len(set(ids))} ids are there twice"]
    row = {id: i for i, id in enumerate(ids)}
    written = [id for number in range(ROLES["write"]) for id in logged(folder, f"write{number}")]
    if lost := [id for id in written if id not in row]:
        wrong.append(f"{len(lost)} of {len(written)} committed rows are lost, such as {lost[:3]}")
    if other := [id for id in written if id in row and not np.array_equal(X[row[id]], vector_of(id))]:
        wrong.append(f"{len(other)} rows have another vector, such as {other[:3]}")
    photos = {path.name for path in (folder / "photos").iterdir()}
    if {id for id in ids if id.endswith(".jpg")} != photos:
        wrong.append("the rows of the pictures are not those of the folder")
    labels = dict(zip(ids, store.to_arrow(["label"]).column("label").to_pylist(), strict=True))
    last = dict(logged(folder, "label0"))
    if other := [id for id, label in last.items() if labels.get(id) != label]:
        wrong.append(f"{len(other)} of {len(last)} labels are lost, such as {other[:3]}")
    return wrong


def main(role: str, number: str, folder: str, seconds: str) -> None:
    """Do the work of a role, over and over."""
    place, chance = Path(folder), random.Random(f"{role}{number}")
    end, step = time.monotonic() + float(seconds), {**globals()}[f"_{role}"](place, int(number), chance)
    with (place / f"{role}{number}.log").open("w") as log:
        while time.monotonic() < end:
            try:
                entries = next(step)()
            except ConcurrentWriteError:
                continue
            for entry in entries or ():
                log.write(json.dumps(entry) + "\n")
            log.flush()
            time.sleep(chance.random() * 0.05)


Steps = Iterator[Callable[[], Any]]


def _write(folder: Path, number: int, chance: random.Random) -> Steps:
    store, count = embedpipe.FeatureStore(folder / "store"), 0
    while True:
        ids = [f"writer{number}-{count + i:05d}" for i in range(chance.randint(1, 8))]
        count += len(ids)
        rows = {
            "id": ids,
            "content_hash": [f"{id:>064}" for id in ids],
            "source_root": ["made up"] * len(ids),
            "embedding": vector_column(np.stack([vector_of(id) for id in ids])),
        }

        def write(rows: Any = rows, ids: list[str] = ids) -> list[str]:
            store.write(pa.table(rows))
            return ids

        yield write


def _prune(folder: Path, number: int, chance: random.Random) -> Steps:
    count = 12
    while True:
        photos = sorted((folder / "photos").iterdir())
        for path in chance.sample(photos, min(len(photos) // 3, 2)):
            path.unlink()
        for _ in range(2):
            write_photo(folder / "photos" / f"{count}.jpg", seed=count)
            count += 1
        options: dict[str, Any] = {"backbone": TINY, "engine": "torch", "progress": False, "prune": True}

        def embed(options: dict[str, Any] = options) -> None:
            while True:
                try:
                    embedpipe.embed(folder / "photos", folder / "store", **options)
                    return
                except ConcurrentWriteError:
                    continue
                except StoreError as error:
                    if "vacuum deletes files" not in str(error):
                        raise

        yield embed


def _label(folder: Path, number: int, chance: random.Random) -> Steps:
    while True:
        known = [id for writer in range(ROLES["write"]) for id in _whole_lines(folder / f"write{writer}.log")]
        chosen = chance.sample(known, min(len(known), 5))
        labels = [f"label {chance.randrange(1000)}" for _ in chosen]

        def label(chosen: list[str] = chosen, labels: list[str] = labels) -> list[tuple[str, str]]:
            if chosen:
                embedpipe.FeatureStore(folder / "store").label(pa.table({"id": chosen, "label": labels}))
            return list(zip(chosen, labels, strict=True))

        yield label


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _compact(folder: Path, number: int, chance: random.Random) -> Steps:
    while True:
        yield lambda: embedpipe.FeatureStore(folder / "store").compact() and None


def _vacuum(folder: Path, number: int, chance: random.Random) -> Steps:
    while True:
        yield lambda: embedpipe.FeatureStore(folder / "store").vacuum(older_than_hours=0) and None


def _read(folder: Path, number: int, chance: random.Random) -> Steps:
    def read() -> None:
        try:
            store = embedpipe.FeatureStore(folder / "store")
            ids, X = store.ids(), store.to_numpy()
        except StoreError as error:
            if "vacuum deletes files" not in str(error):  # of the version that is read, which is the newest no longer
                raise
            return
        assert len(ids) == len(set(ids)) == len(X)
        for i, id in enumerate(ids):
            assert id.endswith(".jpg") or np.array_equal(X[i], vector_of(id)), id

    while True:
        yield read


if __name__ == "__main__":
    main(*sys.argv[1:])
