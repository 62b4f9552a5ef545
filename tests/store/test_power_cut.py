"""Power cuts: every state in which they may leave a store is whole, or repaired to the last commit or the one before.

`os.fsync` is where a run waits for the disk. The recorder copies the store around each. What was synced by then,
content and name, survives; every other change since may be there, be missing, or leave an empty or a shorter file. The
log that delta-rs writes is part of the copies.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from stored import make_spec

import embedpipe
from embedpipe import FeatureStore
from embedpipe.errors import DecodeError, Failure, StoreError
from embedpipe.store import delta_log
from embedpipe.store.schema import vector_column

X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
Files = dict[Path, bytes]


@dataclass
class Moment:
    """The disk at one moment: all files, what of them is durable, and the number of steps that have returned."""

    now: Files
    durable: Files
    steps: int


@dataclass
class Recorder:
    """Notes what a power cut may leave at each `os.fsync` below ``root``."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    durable: Files = field(default_factory=dict)
    steps: int = 0

    def files(self) -> Files:
        return {path.relative_to(self.root): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def note(self) -> None:
        self.moments.append(Moment(self.files(), dict(self.durable), self.steps))

    def sync(self, descriptor: int) -> None:
        self.note()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_file():  # the content survives, under the name that a synced folder gives it
            self.contents[path.stat().st_ino] = path.read_bytes()
            if (name := path.relative_to(self.root)) in self.durable:
                self.durable[name] = path.read_bytes()
        elif self.root in (path, *path.parents):
            kept = {name: data for name, data in self.durable.items() if (self.root / name).parent != path}
            synced = {each: self.contents.get(each.stat().st_ino) for each in path.iterdir() if each.is_file()}
            self.durable = kept | {
                each.relative_to(self.root): b"" if data is None else data for each, data in synced.items()
            }
        self.note()


def states(moment: Moment, random: random.Random, count: int) -> list[Files]:
    """Return states in which a power cut may leave the disk: the extremes, each change alone, and random ones."""
    now, durable = moment.now, moment.durable
    changed = sorted(path for path in {*now, *durable} if now.get(path) != durable.get(path))

    def choices(path: Path) -> list[bytes | None]:
        data = now.get(path)
        left = [durable.get(path), data]
        return left if data is None else [*left, b"", data[: len(data) // 2]]

    def state(choice: dict[Path, bytes | None]) -> Files:
        return {path: data for path, data in (durable | choice).items() if data is not None}

    result = [durable, now]
    result += [state({path: data}) for path in changed for data in choices(path)]
    result += [state({path: random.choice(choices(path)) for path in changed}) for _ in range(count)]
    return list({tuple(sorted(each.items())): each for each in result}.values())


def rows_of(store: FeatureStore) -> list[tuple]:
    """Return ids, hashes and labels, and check the vectors."""
    table = store.to_arrow(store.data_columns)
    labels = table["label"].to_pylist() if "label" in table.column_names else [None] * len(table)
    store.failures()
    ids = table["id"].to_pylist()
    np.testing.assert_array_equal(store.to_numpy(), X[[int(id[4:]) for id in ids]].reshape(-1, 4))
    return list(zip(ids, table["content_hash"].to_pylist(), labels, strict=True))


def write(folder: Path, recorder: Recorder) -> list[list[tuple]]:
    """Create a store, add and replace rows, set labels, fail, remove, compact. Return the rows after each step."""

    def part(first: int, last: int, hash: str) -> pa.Table:
        ids = [f"row-{i:03d}" for i in range(first, last)]
        about = {"id": ids, "content_hash": [hash] * len(ids), "source_root": ["r"] * len(ids)}
        return pa.table({**about, "embedding": vector_column(X[first:last])})

    store = FeatureStore.create(folder, make_spec(4))
    snapshots: list[list[tuple]] = [[], []]
    recorder.steps = 1
    for step in (
        lambda: store.write(part(0, 10, "a")),
        lambda: store.write(part(5, 20, "b")),
        lambda: store.failures_table.record([Failure.of("x", None, DecodeError("torn"))], "r"),
        lambda: store.label(pa.table({"id": ["row-003"], "label": ["x"]})),
        lambda: store.remove(["row-004"]),
        lambda: store.write(part(20, 30, "c")),
        store.compact,
        lambda: store.write(part(30, 40, "d")),
    ):
        step()
        snapshots.append(rows_of(FeatureStore(folder)))
        recorder.steps += 1
    return snapshots


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads the paths of open files from /proc")
@pytest.mark.parametrize("count", [1, pytest.param(60, marks=pytest.mark.long)])
def test_power_cut_at_any_sync_loses_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(delta_log, "CHECKPOINT_INTERVAL", 4)
    folder = tmp_path / "disk" / "store"
    folder.parent.mkdir()
    recorder = Recorder(folder.parent)
    monkeypatch.setattr(os, "fsync", recorder.sync)
    snapshots = write(folder, recorder)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    seed = random.Random(0)
    tried = repaired = 0
    known: set[tuple] = set()
    for moment in recorder.moments:
        for files in states(moment, seed, count):
            key = (moment.steps, tuple(sorted(files.items())))
            if key in known:
                continue
            known.add(key)
            tried += 1
            shutil.rmtree(folder, ignore_errors=True)
            for path, data in files.items():
                (folder.parent / path).parent.mkdir(parents=True, exist_ok=True)
                (folder.parent / path).write_bytes(data)
            if not (folder / "_delta_log").is_dir():
                assert moment.steps == 0
                continue
            try:
                rows = rows_of(FeatureStore(folder))
            except StoreError:
                repaired += 1
                if embedpipe.repair(folder).version < 0:
                    assert moment.steps == 0
                    continue
                rows = rows_of(FeatureStore(folder))
            assert rows in snapshots[moment.steps : moment.steps + 2], (moment.steps, sorted(map(str, files)))
    assert tried > 80
    assert repaired > 10, "otherwise nothing was tried"
