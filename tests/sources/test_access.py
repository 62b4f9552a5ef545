"""What cells of tables, lines of lists and uris of stores may name, and what web servers may be read."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedpipe.errors import ReadError, SourceError
from embedpipe.sources import SourceOptions, open_source, read_uri, root_exists
from embedpipe.sources.access.outage import is_outage
from embedpipe.sources.access.roots import access_of, access_of_store
from embedpipe.sources.access.web import is_public

SECRET = b"secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        type(self).seen.append(self.path)  # type: ignore[attr-defined]
        target = self.path.partition("?to=")[2]
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        if self.path.startswith("/cut"):
            self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"x.jpg\n" if self.path.endswith(".lst") else self.path.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _serve() -> http.server.ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Two web servers on this machine."""
    running = [_serve(), _serve()]
    yield [f"http://127.0.0.1:{server.server_port}" for server in running]
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image, and a secret beside it."""
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "a.jpg").write_bytes(b"a")
    (tmp_path / "data" / "x::y.jpg").write_bytes(b"colons")
    return tmp_path / "data"


def chained(folder: Path) -> str:
    """Write a reference file system that gives the secret as one of its own files, and return its URL."""
    refs = folder / "refs.json"
    refs.write_text(json.dumps({"version": 1, "refs": {"k.jpg": [str(folder.parent / "secret.jpg")]}}))
    return f"reference://k.jpg?fo={refs}"


def foreign(folder: Path) -> list[str]:
    return [
        str(folder.parent / "secret.jpg"),
        f"file://{folder.parent}/secret.jpg",
        f"FILE://localhost{folder.parent}/secret.jpg",
        "../secret.jpg",
        "sub/../../secret.jpg",
        chained(folder),
        f"reference://k.jpg::file://{folder}/refs.json",
        f"simplecache::file://{folder.parent}/secret.jpg",
        f"local://{folder.parent}/secret.jpg",
        f"memory://x::file://{folder.parent}/secret.jpg",
        "ftp://127.0.0.1/x.jpg",
        "github://owner:repo@main/x.jpg",
        "webhdfs://127.0.0.1:1/x.jpg",
        "http://127.0.0.1:1/x.jpg",
        "https://example.org/x.jpg",
        "s3://bucket/x.jpg",
        "s3://bucket/x.jpg?endpoint_override=127.0.0.1:1&scheme=http",
        "/etc/hostname",
        "/dev/zero",
        "data:image/png;base64,AAAA",
    ]


@pytest.mark.parametrize("case", range(20))
@pytest.mark.parametrize("kind", ["csv", "list", "struct"])
def test_cells_and_lines_name_only_what_is_below_their_folder(folder: Path, case: int, kind: str) -> None:
    location = foreign(folder)[case]
    if kind == "csv":
        source = folder / "t.csv"
        pd.DataFrame({"file": ["a.jpg", location], "id": ["a", "b"]}).to_csv(source, index=False)
    elif kind == "list":
        source = folder / "t.lst"
        source.write_text(f"a.jpg\n{location}\n")
    else:
        source = folder / "t.parquet"
        cells = [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": location}]
        pq.write_table(pa.table({"image": cells, "id": ["a", "b"]}), source)
    listing = open_source(source)
    assert listing.read(0) == b"a"
    with pytest.raises(ReadError, match=r"is outside of|no such file"):
        listing.read(1)


def test_a_name_with_colons_is_a_file(folder: Path) -> None:
    (folder / "t.csv").write_text("file\nx::y.jpg\n./a.jpg\nsub/../a.jpg\n")
    listing = open_source(folder / "t.csv", SourceOptions(id=None))
    assert [listing.read(row) for row in range(3)] == [b"colons", b"a", b"a"]


def test_a_table_that_names_nothing_below_its_folder_is_refused_with_the_option(folder: Path) -> None:
    (folder / "t.csv").write_text(f"file\n{folder.parent}/secret.jpg\n")
    with pytest.raises(SourceError, match=r"none of the files that 't\.csv' names may be read: .*allow_root=\.\.\."):
        open_source(folder / "t.csv")
    listing = open_source(folder / "t.csv", SourceOptions(allow_root=(str(folder.parent),)))
    assert listing.read(0) == SECRET


def test_roots_of_the_environment_are_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "t.lst").write_text(f"a.jpg\n{folder.parent}/secret.jpg\n")
    monkeypatch.setenv("EMBEDPIPE_ALLOW_ROOT", f"s3://b, {folder.parent}")
    assert open_source(folder / "t.lst").read(1) == SECRET


def test_paths_in_memory_may_be_anywhere_and_urls_are_limited(folder: Path) -> None:
    secret, reference = str(folder.parent / "secret.jpg"), chained(folder)
    for source in ([secret, reference], pd.DataFrame({"file": [secret, reference]})):
        listing = open_source(source)
        assert listing.read(0) == SECRET
        with pytest.raises(ReadError, match="must be a path, or a URL"):
            listing.read(1)


@pytest.mark.parametrize(
    "form",
    ["{}", "tar://k.jpg::{}", "parquet://image/0::{}", "table://text/0::{}"],
)
def test_uris_of_a_store_are_not_chains_or_other_schemes(folder: Path, form: str) -> None:
    for location in (
        chained(folder),
        f"reference://k.jpg::file://{folder}/refs.json",
        "ftp://127.0.0.1/x.jpg",
        "http://127.0.0.1:1/x.jpg",
        "s3://bucket/x.jpg?endpoint_override=127.0.0.1:1&scheme=http",
    ):
        with pytest.raises(
            ReadError, match=r"EMBEDPIPE_ALLOW_ROOT|private address|chained|cannot read file:|no such|has no file"
        ):
            read_uri(form.format(location))


def test_structs_of_a_table_in_a_store_stay_below_its_folder(folder: Path) -> None:
    cells = [{"bytes": None, "path": "../secret.jpg"}, {"bytes": None, "path": "a.jpg"}]
    pq.write_table(pa.table({"image": cells}), folder / "t.parquet")
    assert read_uri(f"parquet://image/1::{folder}/t.parquet") == b"a"
    with pytest.raises(ReadError, match="is outside of"):
        read_uri(f"parquet://image/0::{folder}/t.parquet")
    with pytest.raises(ReadError, match="a uri of a cell must be"):
        read_uri(f"parquet://image/{'9' * 5000}::{folder}/t.parquet")


def test_stored_roots_open_no_other_file_systems(folder: Path) -> None:
    fsspec.filesystem("memory").pipe("/gone/x", b"x")
    assert root_exists("reference://x")  # unknown, so nothing is taken for moved
    assert root_exists("http://127.0.0.1:1/x")
    assert not root_exists(str(folder / "nothing"))


def test_a_list_of_a_web_server_names_files_of_that_server(servers: list[str]) -> None:
    listing = open_source(f"{servers[0]}/a/list.lst")
    assert listing.read(0) == b"/a/x.jpg"
    with pytest.raises(ReadError, match="is outside of"):
        access_of(f"{servers[0]}/a").check(f"{servers[0]}/a/%2e%2E/b")


def test_private_web_servers_are_read_only_if_named(folder: Path, servers: list[str]) -> None:
    port = servers[0].rpartition(":")[2]
    (folder / "t.csv").write_text(f"file\na.jpg\n{servers[0]}/b.jpg\nhttp://localhost:{port}/b.jpg\n")
    for allowed in ((), ("http://",)):
        listing = open_source(folder / "t.csv", SourceOptions(allow_root=allowed))
        for row in (1, 2):
            with pytest.raises(ReadError, match="private address" if allowed else "is outside of"):
                listing.read(row)
    listing = open_source(folder / "t.csv", SourceOptions(allow_root=(servers[0],)))
    assert listing.read(1) == b"/b.jpg"
    with pytest.raises(ReadError, match="private address"):
        read_uri(f"{servers[0]}/b.jpg")


def test_redirects_lead_to_no_private_server_or_file(folder: Path, servers: list[str]) -> None:
    targets = [f"{servers[1]}/x.jpg", f"file://{folder.parent}/secret.jpg", "ftp://127.0.0.1/x", "/same.jpg"]
    (folder / "t.lst").write_text("".join(f"{servers[0]}/r?to={target}\n" for target in targets))
    listing = open_source(folder / "t.lst", SourceOptions(allow_root=(servers[0],)))
    for row, reason in enumerate(("private address", "file", "ftp")):
        with pytest.raises(ReadError, match=reason):
            listing.read(row)
    assert listing.read(3) == b"/same.jpg"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False), ("0.0.0.0", False),
        ("192.168.1.1", False), ("172.16.0.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("224.0.0.1", False), ("255.255.255.255", False),
    ],
)  # fmt: skip
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_roots_compare_whole_names_and_endpoints(folder: Path) -> None:
    access = access_of("s3://bucket/photos?region=eu-1", ("https://host/a",))
    for location in ("s3://bucket/photos/x.jpg?region=eu-1", "https://host/a/x.jpg"):
        access.check(location)
    for location in (
        "s3://bucket/photos2/x.jpg?region=eu-1",
        "s3://bucket/photos/x.jpg",
        "s3://bucket/photos/x.jpg?endpoint_override=evil.org",
        "https://host/ab/x.jpg",
        "https://host@evil.org/a/x.jpg",
        "https://host.evil.org/a/x.jpg",
        "http://host/a/x.jpg",
    ):
        with pytest.raises(ReadError, match="is outside of"):
            access.check(location)
    access_of_store().check(str(folder / "a.jpg"))


@pytest.mark.parametrize("name", ["photo-123", "pic?id=3", "a.jpg?w=800&h=600"])
def test_picture_of_a_web_server_may_have_any_name(servers: list[str], name: str) -> None:
    listing = open_source(f"{servers[0]}/{name}")
    assert listing.table["id"].to_pylist() == [name]
    assert listing.read(0) == f"/{name}".encode()


def test_a_file_whose_connection_ends_early_is_an_outage_and_no_shorter_file(servers: list[str]) -> None:
    with pytest.raises(ReadError, match="the connection ended 92 bytes before the end of the file") as caught:
        open_source(f"{servers[0]}/cut.jpg").read(0)
    assert is_outage(caught.value)
