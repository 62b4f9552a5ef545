"""Kills, Ctrl-C and two concurrent writers: no row is lost or repeated."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from forked import Forks

import embedpipe

# Small commits and a slow network let kills hit every step.
SLOW = """
import sys, embedpipe
from embedpipe.embedding.writing import writer
writer.FLUSH_ROWS, writer.FLUSH_PAUSE = 8, 0
embedpipe.embed(sys.argv[1], sys.argv[2], backbone="python:tiny_backbone.make", batch_size=4, engine="torch")
"""


def environment(seconds: float) -> dict[str, str]:
    return {**os.environ, "TINY_SECONDS": str(seconds)}


def rows(store: Path) -> int:
    return len(embedpipe.FeatureStore(store)) if embedpipe.FeatureStore.exists(store) else 0


@pytest.mark.long
def test_twenty_kills_lose_no_rows(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    photos = make_photos(500)
    expected = embedpipe.embed(photos, tmp_path / "whole", backbone=TINY)
    killed, log = tmp_path / "killed", tmp_path / "forwarded"
    env = {**environment(0.01), "TINY_LOG": str(log)}
    chance = random.Random(0)
    with Forks(env) as forks:
        for _ in range(20):
            forks.kill(f"import sys\nsys.argv = {['', str(photos), str(killed)]}\n{SLOW}", log, chance.randint(1, 40))
    assert 0 < rows(killed) < 500
    assert subprocess.run([sys.executable, "-c", SLOW, photos, killed], env=env, timeout=120).returncode == 0
    store = embedpipe.FeatureStore(killed)
    assert store.ids() == expected.ids()
    names = expected.data_columns
    assert store.to_arrow(names) == expected.to_arrow(names)
    a, b = store.to_numpy(), expected.to_numpy()
    assert (np.linalg.norm(a - b, axis=1) <= 1e-4 * np.linalg.norm(b, axis=1)).all()
    # A kill loses 8 rows that wait for a commit, and 4 rows each before the writer, in the queue and in the network.
    assert log.stat().st_size <= 500 + 20 * (8 + 3 * 4)


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_interrupt_commits_finished_rows(
    make_photos: Callable[..., Path], tmp_path: Path, stop: signal.Signals
) -> None:
    photos, to = make_photos(60), tmp_path / "store"
    command = [
        sys.executable,
        "-m",
        "embedpipe",
        "embed",
        photos,
        "--to",
        to,
        "--backbone",
        TINY,
        "--batch-size",
        "4",
    ]
    log = tmp_path / "log"
    env = {**environment(0.05), "TINY_LOG": str(log)}
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200  # for the start of a process on a busy machine
    while (not log.exists() or log.stat().st_size < 20) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(stop)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; finished work is saved" in message
    assert "Traceback" not in message
    assert 12 <= rows(to) < 60
    store = embedpipe.embed(photos, to, backbone=TINY)
    assert store.summary.embedded + store.summary.reused == 60
    assert store.summary.reused >= 12
    assert len(store.ids()) == len(set(store.ids())) == 60


@pytest.mark.long
def test_concurrent_processes_store_the_union(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    photos, to = make_photos(90), tmp_path / "store"
    parts = []
    for name, part in (("a", slice(0, 60)), ("b", slice(30, 90))):
        paths = sorted(photos.rglob("*.jpg"))[part]
        parts.append(tmp_path / f"{name}.txt")
        parts[-1].write_text("\n".join(map(str, paths)))
    # The same source given as two overlapping lists: the ids are the paths.
    script = SLOW.replace("sys.argv[1]", "open(sys.argv[1]).read().split()")
    env = environment(0.01)
    processes = [subprocess.Popen([sys.executable, "-c", script, part, to], env=env) for part in parts]
    assert [process.wait(120) for process in processes] == [0, 0]
    store = embedpipe.FeatureStore(to)
    assert store.ids() == sorted(str(path) for path in photos.rglob("*.jpg"))
    X = store.to_numpy()
    backbone = embedpipe.load_backbone(TINY)
    for id, vector in list(zip(store.ids(), X, strict=True))[::10]:
        alone = backbone.forward(backbone.prepare(Path(id).read_bytes()).value[None])["embedding"][0]
        np.testing.assert_allclose(vector, alone, rtol=1e-4, atol=1e-6)
