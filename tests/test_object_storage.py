"""Photos and store on an S3 server (moto's, on loopback, in a process of its own): the same results."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
from conftest import TINY

import embedpipe


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[pafs.FileSystem]:
    """An S3 bucket named ``bucket``, as a filesystem."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)
        filesystem = pafs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{port}", scheme="http", allow_bucket_creation=True, region="us-east-1"
        )
        filesystem.create_dir("bucket")
        yield filesystem
    finally:
        server.kill()
        server.wait()


def put(filesystem: pafs.FileSystem, key: str, payload: bytes) -> None:
    with filesystem.open_output_stream(f"bucket/{key}") as stream:
        stream.write(payload)


def test_photos_and_store_in_a_bucket(bucket: pafs.FileSystem, photos: Path, tmp_path: Path) -> None:
    local = embedpipe.embed(photos, tmp_path / "store", backbone=TINY)
    for path in photos.rglob("*.jpg"):
        put(bucket, f"photos/{path.relative_to(photos)}", path.read_bytes())
    put(bucket, "photos/cat/broken.jpg", b"no image")

    store = embedpipe.embed("s3://bucket/photos", "s3://bucket/store", backbone=TINY)
    assert (store.summary.embedded, store.summary.failed) == (12, 1)
    assert store.ids() == local.ids()
    np.testing.assert_allclose(store.to_numpy(), local.to_numpy(), rtol=1e-4, atol=1e-6)
    assert store.to_arrow(["label"]) == local.to_arrow(["label"])
    assert store.failures()["id"].to_pylist() == ["cat/broken.jpg"]

    bucket.delete_file("bucket/photos/cat/broken.jpg")
    bucket.delete_file("bucket/photos/dog/0001.jpg")
    again = embedpipe.embed("s3://bucket/photos", "s3://bucket/store", backbone=TINY, prune=True)
    assert (again.summary.embedded, again.summary.reused, again.summary.pruned) == (0, 11, 1)
    assert again.failures().num_rows == 0
    again.compact()
    assert embedpipe.verify("s3://bucket/store", trust=True).ok
