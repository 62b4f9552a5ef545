"""The same store from a Ray cluster of three nodes as from one process, also after kills of what runs there."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from conftest import TINY, write_photo
from object_server import ObjectServer, object_server
from PIL import Image
from tiny_text_backbone import TINY_TEXT

import embedpipe

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("ray"),
    pytest.mark.timeout(1200),
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "ResourceWarning")),  # of Ray
]

DRIVER = """
import sys, embedpipe
embedpipe.embed(sys.argv[1], sys.argv[2], backbone="python:tiny_backbone.make", runner="ray", engine="torch")
"""
PHOTOS = 3000


class Machines:
    """A cluster with one core on each of three nodes; the node of the driver has none."""

    def __init__(self, log: Path, server: ObjectServer) -> None:
        from ray.cluster_utils import Cluster

        self.log, self.server = log, server
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(3)]

    def workers(self) -> list[psutil.Process]:
        """Return the processes that embed."""
        return [each for each in psutil.process_iter(["name", "cmdline"]) if _title(each).startswith("ray::MapWorker")]

    def kill_worker(self) -> None:
        """Kill a process that embeds."""
        random.choice(self.workers()).kill()

    def kill_raylet(self) -> None:
        """Kill the raylet of a node, which takes its workers with it, and add a node in its place."""
        self._end(lambda node: node.kill_raylet())

    def kill_node(self) -> None:
        """Remove a node, and add another one."""
        self._end(lambda node: None)

    def _end(self, kill: Callable[[Any], None]) -> None:
        node = self.nodes.pop(0)
        kill(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    @property
    def forwarded(self) -> int:
        """Number of images that went through the network."""
        return self.log.stat().st_size if self.log.exists() else 0


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    ray = pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch, object_server() as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("TINY_LOG", str(folder / "forwarded"))
        patch.setenv("TINY_DEATHS", str(folder / "deaths"))
        patch.setenv("TINY_SECONDS", "0.01")
        patch.setenv("EMBEDPIPE_CACHE", str(folder / "cache"))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        machines = Machines(folder / "forwarded", server)
        patch.setenv("RAY_ADDRESS", machines.cluster.address)
        yield machines
        ray.shutdown()
        machines.cluster.shutdown()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for i in range(PHOTOS):
        write_photo(root / ("cat", "dog", "owl")[i % 3] / f"{i:04d}.jpg", seed=i)
    return root


@pytest.fixture(scope="module")
def expected(many: Path, tmp_path_factory: pytest.TempPathFactory) -> embedpipe.FeatureStore:
    return embedpipe.embed(many, tmp_path_factory.mktemp("local") / "f", backbone=TINY)


def embed(source: Any, to: Path | str, **options: Any) -> embedpipe.FeatureStore:
    options = {"backbone": TINY, "engine": "torch", **options}
    return embedpipe.embed(source, to, runner="ray", **options)


def assert_equal(store: embedpipe.FeatureStore, expected: embedpipe.FeatureStore) -> None:
    names = expected.data_columns
    assert store.columns == expected.columns
    assert store.to_arrow(names) == expected.to_arrow(names)
    a, b = store.to_numpy(), expected.to_numpy()
    assert (np.linalg.norm(a - b, axis=1) <= 1e-4 * np.linalg.norm(b, axis=1)).all()


def orphans(store: embedpipe.FeatureStore) -> set[str]:
    live = {file.path for file in store.refresh().table.files}
    return {path.name for path in Path(store.path).glob("part-*.parquet")} - live


def test_photos_and_their_labels_are_those_of_one_process(
    machines: Machines, many: Path, expected: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    before = machines.forwarded
    store = embed(many, tmp_path / "f")
    assert_equal(store, expected)
    assert machines.forwarded - before == PHOTOS
    summary = store.summary
    assert (summary.embedded, summary.failed, summary.device, summary.engine) == (PHOTOS, 0, "cpu", "torch")
    assert summary.bottleneck.shares["forward"] > 0
    assert not (tmp_path / "f" / "_runs").exists()
    again = embed(many, tmp_path / "f").summary
    assert (again.embedded, again.reused) == (0, PHOTOS)


def test_texts_are_those_of_one_process(machines: Machines, tmp_path: Path) -> None:
    texts = [f"message number {i} of many" for i in range(300)]
    expected = embedpipe.embed(texts, tmp_path / "local", backbone=TINY_TEXT, modality="text")
    assert_equal(embed(texts, tmp_path / "ray", backbone=TINY_TEXT, modality="text"), expected)


def test_killed_workers_raylets_and_nodes_lose_nothing(
    machines: Machines, many: Path, expected: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    before = machines.forwarded
    with ThreadPoolExecutor(1) as pool:  # a node can be added in the main thread only
        run = pool.submit(embed, many, tmp_path / "f")
        for share, kill in ((0.2, machines.kill_worker), (0.4, machines.kill_raylet), (0.6, machines.kill_node)):
            while machines.forwarded - before < share * PHOTOS and not run.done():
                time.sleep(0.05)
            kill()
        store = run.result()
    assert_equal(store, expected)
    assert PHOTOS <= machines.forwarded - before <= PHOTOS + 3 * 2 * 16
    for name in orphans(store):
        os.utime(Path(store.path) / name, (0, 0))
    store.vacuum()
    assert orphans(store) == set()


def test_four_killed_drivers_and_a_rerun_repeat_no_row(
    machines: Machines, many: Path, expected: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    before, to = machines.forwarded, tmp_path / "f"
    for share in (0.2, 0.4, 0.6, 0.8):
        driver = subprocess.Popen([sys.executable, "-W", "ignore", "-c", DRIVER, many, to])
        while machines.forwarded - before < share * PHOTOS and driver.poll() is None:
            time.sleep(0.02)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    subprocess.run([sys.executable, "-W", "ignore", "-c", DRIVER, many, to], check=True, timeout=300)
    assert_equal(embedpipe.FeatureStore(to), expected)
    assert machines.forwarded - before <= 1.15 * PHOTOS


def test_an_item_that_kills_its_worker_fails_and_no_other(
    machines: Machines, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos = make_photos(100)
    Image.new("RGB", (64, 64), "white").save(photos / "cat" / "bright.png")
    deaths = Path(os.environ["TINY_DEATHS"])
    command = [sys.executable, "-m", "embedpipe", "embed", photos, "--to", tmp_path / "f", "--runner", "ray"]
    command += ["--backbone", "python:tiny_backbone.make_deadly", "--engine", "torch"]
    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    store = embedpipe.FeatureStore(tmp_path / "f")
    assert store.failures().select(["id", "exception"]).to_pylist() == [
        {"id": "cat/bright.png", "exception": "WorkerDied"}
    ]
    assert len(store) == 100
    assert deaths.stat().st_size <= 3


def test_a_job_file_runs_on_the_cluster_and_does_nothing_twice(
    machines: Machines, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    make_photos(40, name="photos")
    job = tmp_path / "job.toml"
    job.write_text(f"""
[embed]
source = "photos"
to = "f"
backbone = "{TINY}"
runner = "ray"
engine = "torch"

[fit]
to = "head"
head = "centroid"
folds = 2
""")
    before = machines.forwarded
    command = [sys.executable, "-m", "embedpipe", "run", job, "--json"]
    runs = [subprocess.run(command, check=False, timeout=300, capture_output=True, text=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    steps = [[step["status"] for step in json.loads(run.stdout)["steps"]] for run in runs]
    assert steps == [["done", "done"], ["done", "skipped"]]
    assert machines.forwarded - before == 40


def test_labels_set_by_hand_stay_with_changed_and_moved_photos(
    machines: Machines, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    stores = []
    for name, options in (("local", {}), ("ray", {"runner": "ray", "engine": "torch"})):
        photos = make_photos(30, name=name)
        store = embedpipe.embed(photos, tmp_path / f"{name}.features", backbone=TINY, **options)
        store.label(_labels({"cat/0000.jpg": "lynx", "dog/0001.jpg": "wolf", "owl/0002.jpg": "bat"}))
        write_photo(photos / "cat" / "0000.jpg", seed=1000)
        (photos / "dog" / "0001.jpg").rename(photos / "owl" / "moved.jpg")
        store = embedpipe.embed(photos, tmp_path / f"{name}.features", backbone=TINY, prune=True, **options)
        stores.append(store.to_arrow(["id", "label", "content_hash"]).to_pylist())
    assert stores[0] == stores[1]
    labels = {row["id"]: row["label"] for row in stores[1]}
    assert [labels[id] for id in ("cat/0000.jpg", "owl/moved.jpg", "owl/0002.jpg")] == ["lynx", "wolf", "bat"]


@pytest.fixture
def bucket(machines: Machines, make_photos: Callable[..., Path]) -> Iterator[Path]:
    """Put 120 photos into the bucket of the server, which becomes shaky; yield their folder on this machine."""
    photos, server = make_photos(120), machines.server
    server.files.create_dir("bucket")
    for path in photos.rglob("*.jpg"):
        server.put(f"bucket/photos/{path.relative_to(photos)}", path.read_bytes())
    server.say("shaky")
    yield photos
    server.say("up")
    server.files.delete_dir_contents("bucket")


def test_a_shaky_object_store_loses_nothing(machines: Machines, bucket: Path, tmp_path: Path) -> None:
    expected = embedpipe.embed(bucket, tmp_path / "local", backbone=TINY)
    store = embed("s3://bucket/photos", "s3://bucket/store")
    if store.summary.failed:  # a photo that could not be read in time is read by the next run
        store = embed("s3://bucket/photos", "s3://bucket/store")
    assert store.to_arrow(["id", "label", "content_hash"]) == expected.to_arrow(["id", "label", "content_hash"])
    np.testing.assert_allclose(store.to_numpy(), expected.to_numpy(), rtol=0, atol=1e-6)
    machines.server.say("up")
    names = {info.base_name for info in machines.server.files.get_file_info(pafs.FileSelector("bucket/store"))}
    assert "_delta_log" in names
    assert "_runs" not in names


def test_two_commands_at_once_on_one_object_store_keep_each_id_once(
    machines: Machines, bucket: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, "s3://bucket/photos", "s3://bucket/store"]
    drivers = [subprocess.Popen(command) for _ in range(2)]
    assert [driver.wait(300) for driver in drivers] == [0, 0]
    expected = embedpipe.embed(bucket, tmp_path / "local", backbone=TINY)
    store = embed("s3://bucket/photos", "s3://bucket/store")
    assert store.ids() == expected.ids()
    np.testing.assert_allclose(store.to_numpy(), expected.to_numpy(), rtol=0, atol=1e-6)


def test_vacuum_during_a_run_loses_nothing(
    machines: Machines, many: Path, expected: embedpipe.FeatureStore, tmp_path: Path
) -> None:
    to = tmp_path / "f"
    driver = subprocess.Popen([sys.executable, "-W", "ignore", "-c", DRIVER, many, to])
    while driver.poll() is None:
        if embedpipe.FeatureStore.exists(to):
            embedpipe.FeatureStore(to).vacuum(older_than_hours=0)
        time.sleep(0.2)
    assert driver.returncode == 0
    assert_equal(embedpipe.FeatureStore(to), expected)


def _labels(labels: dict[str, str]) -> pa.Table:
    return pa.table({"id": list(labels), "label": list(labels.values())})
