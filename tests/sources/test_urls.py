"""URLs: a local S3 server, and the memory filesystem of fsspec."""

from __future__ import annotations

import io
import pickle
import tarfile
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import open_source, read_table, read_uri, root_exists
from embedpipe.sources.locations import filesystem, read_range
from embedpipe.sources.readers import tar_members

FILES = {
    "photos/cat/a b.jpg": b"first",
    "photos/dog/50%#1+é.jpg": b"second",
    "photos/dog/notes.md": b"x",
    "photos/labels.csv": b"file,label\ncat/a b.jpg,cat\n",
    "photos/names.txt": b"cat/a b.jpg\n",
}


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("x.jpg", b"image x"), ("x.cls", b"7"), ("y.jpg", b"image y")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [b"cell 0", b"cell 1"], "id": ["p", "q"]}), buffer, row_group_size=1)
    return buffer.getvalue()


ALL = {**FILES, "shards/s-000.tar": tar_bytes(), "shards/s-001.tar": tar_bytes(), "tables/t.parquet": parquet_bytes()}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start an S3 server with a bucket ``data``, and yield its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, **keys)
    client.create_bucket(Bucket="data")
    for name, data in ALL.items():
        client.put_object(Bucket="data", Key=name, Body=data)
    client.put_object(Bucket="data", Key="photos/", Body=b"")
    client.close()
    yield endpoint
    server.stop()


@pytest.fixture(params=["environment", "query", "memory"])
def base(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Yield the parts of a URL before and after the key."""
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        for name, data in ALL.items():
            memory.pipe(f"/data/{name}", data)
        yield "memory://data/", ""
        memory.rm("/data", recursive=True)
        return
    endpoint: str = request.getfixturevalue("server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if request.param == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield "s3://data/", ""
    else:
        address = urllib.parse.quote(endpoint.partition("://")[2], safe="")
        query = f"?endpoint_override={address}&scheme=http&region=us-east-1"
        monkeypatch.setenv("EMBEDPIPE_ALLOW_ROOT", f"s3://data{query}")  # for the uris of stores
        yield "s3://data/", query


def test_remote_folder_is_listed(base: tuple[str, str]) -> None:
    before, after = base
    listing = open_source(f"{before}photos/{after}")
    assert listing.table.column("id").to_pylist() == ["cat/a b.jpg", "dog/50%#1+é.jpg"]
    assert listing.table.column("label").to_pylist() == ["cat", "dog"]
    assert listing.table.column("source_size").to_pylist() == [5, 6]
    assert listing.root == f"{before}photos{after}"
    assert root_exists(listing.root)
    assert not root_exists(f"{before}nothing{after}")
    assert [listing.read(0), listing.read(1)] == [b"first", b"second"]
    assert [read_uri(uri) for uri in listing.table.column("uri").to_pylist()] == [b"first", b"second"]
    assert listing.skipped == {".md": 1, ".csv": 1, ".txt": 1}


def test_remote_table_and_list_are_read(base: tuple[str, str]) -> None:
    before, after = base
    for name in ("labels.csv", "names.txt"):
        listing = open_source(f"{before}photos/{name}{after}")
        assert listing.table.column("id").to_pylist() == ["cat/a b.jpg"]
        assert listing.read(0) == b"first"
    assert read_table(f"{before}photos/labels.csv{after}").num_rows == 1


def test_remote_parquet_cells_are_read(base: tuple[str, str]) -> None:
    before, after = base
    listing = open_source(f"{before}tables/t.parquet{after}")
    assert listing.table.column("id").to_pylist() == ["p", "q"]
    assert listing.read(1) == read_uri(listing.table.column("uri")[1].as_py()) == b"cell 1"


@pytest.mark.parametrize("pattern", ["s-*.tar", "s-{000..001}.tar"])
def test_remote_shards_are_read(base: tuple[str, str], pattern: str) -> None:
    before, after = base
    listing = open_source(f"{before}shards/{pattern}{after}")
    assert listing.table.column("id").to_pylist() == ["s-000/x", "s-000/y", "s-001/x", "s-001/y"]
    assert listing.table.column("label").to_pylist() == ["7", None] * 2
    assert listing.read(3) == read_uri(listing.table.column("uri")[3].as_py()) == b"image y"
    assert root_exists(listing.root)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int, int]]]:
    """Yield what is read of files in shards: shard, first byte, number of bytes."""
    asked: list[tuple[str, int, int]] = []
    monkeypatch.setattr(tar_members, "read_range", lambda *place: asked.append(place) or read_range(*place))
    yield asked
    fsspec.filesystem("memory").rm("/shards", recursive=True)


def write_shard(name: str, images: list[bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for row, image in enumerate(images):
            info = tarfile.TarInfo(f"{row:03d}.jpg")
            info.size = len(image)
            tar.addfile(info, io.BytesIO(image))
    fsspec.filesystem("memory").pipe(f"/shards/{name}", buffer.getvalue())


def test_a_part_reads_neighbours_in_a_remote_shard_by_one_request(requests: list[tuple[str, int, int]]) -> None:
    images = [f"image {row}".encode() * 99 for row in range(40)]
    for number in range(2):
        write_shard(f"{number}.tar", images[20 * number : 20 * number + 20])
    listing = open_source("memory://shards/*.tar")
    rows = [*range(4, 30), 2, 1]  # a stretch of each shard, and two files in the other order
    part = pickle.loads(pickle.dumps(listing.take(np.array(rows))))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(part.read, range(len(rows)))) == [images[row] for row in rows]
    assert sorted(shard[-5:] for shard, _, _ in requests) == ["0.tar"] * 3 + ["1.tar"]
    assert part.read(3) == images[7], "what was read is read again, by itself"
    assert requests[-1][2] == len(images[7])


def test_a_stretch_is_limited_and_leaves_out_what_lies_between(
    requests: list[tuple[str, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_members, "STRETCH", 5_000)
    monkeypatch.setattr(tar_members, "GAP", 1_500)
    images = [bytes([row]) * 900 for row in range(20)]  # with headers 1,536 bytes each
    write_shard("a.tar", images)
    part = open_source("memory://shards/a.tar").take(np.array([*range(10), 12, 13, 16]))
    for row, image in zip(range(13), [*images[:10], images[12], images[13], images[16]], strict=True):
        assert part.read(row) == image
    assert [size for _, _, size in requests] == [3 * 1536 - 636] * 3 + [900, 1536 + 900, 900]


def test_the_files_before_the_end_of_a_cut_shard_are_read(requests: list[tuple[str, int, int]]) -> None:
    write_shard("a.tar", [b"x" * 900, b"y" * 900])
    part = open_source("memory://shards/a.tar").take(np.array([0, 1]))
    fsspec.filesystem("memory").pipe("/shards/a.tar", fsspec.filesystem("memory").cat("/shards/a.tar")[:2_000])
    with pytest.raises(ReadError, match="is truncated"):
        part.read(1)
    assert part.read(0) == b"x" * 900
    assert len(requests) == 3


def test_remote_image_is_read_and_missing_ones_fail(base: tuple[str, str]) -> None:
    before, after = base
    listing = open_source(f"{before}photos/cat/a b.jpg{after}")
    assert listing.table.column("id").to_pylist() == ["a b.jpg"]
    assert listing.read(0) == b"first"
    with pytest.raises(SourceError, match="no file or folder"):
        open_source(f"{before}nothing{after}")
    with pytest.raises(ReadError, match="cannot read"):
        read_uri(f"{before}photos/gone.jpg{after}")


def test_connections_are_cached(base: tuple[str, str]) -> None:
    before, after = base
    first, second = (filesystem(f"{before}photos/{name}{after}") for name in ("a", "b"))
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("data/photos/a", "data/photos/b") or before.startswith("memory")


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(SourceError, match="cannot open 'nosuch://x/y'"):
        filesystem("nosuch://x/y")
