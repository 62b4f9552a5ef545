"""URLs: a local S3 server, and the memory filesystem of fsspec."""

from __future__ import annotations

import io
import tarfile
import urllib.parse
from collections.abc import Iterator

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import open_source, read_table, read_uri, root_exists
from embedpipe.sources.locations import filesystem

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
