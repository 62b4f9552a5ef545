"""The commands `view` and `serve`: the address, the token, Ctrl-C; where they listen."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving.conftest import make_viewer

import embedpipe
from embedpipe.serving.listening import listen


@contextmanager
def running(*arguments: object) -> Iterator[str]:
    """Run a command of a server; yield what it prints. It must end by Ctrl-C with code 0."""
    command = [sys.executable, "-m", "embedpipe", *map(str, arguments)]
    here = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here) as server:
        assert server.stdout
        yield server.stdout.readline()
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
        assert (server.returncode, errors) == (0, "")


@pytest.mark.long
def test_view_prints_an_address_that_opens_the_store_and_ends_by_ctrl_c(store: Any) -> None:
    with running("view", store.path, "--port", 0, "--edit", "--trust") as line:
        address, token = re.search(r"(http://127.0.0.1:\d+/)\?token=(\S+)", line).groups()  # type: ignore[union-attr]
        request = urllib.request.Request(f"{address}api/store", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.loads(answer.read())["rows"] == 30


@pytest.mark.long
def test_serve_prints_an_address_that_predicts(store: Any, tmp_path: Path) -> None:
    embedpipe.fit(store, "centroid", to=tmp_path / "photos.head", progress=False)
    picture = Path(store.to_arrow(["uri"])["uri"][0].as_py()).read_bytes()
    with running("serve", tmp_path / "photos.head", "--port", 0, "--trust", "--engine", "torch") as line:
        address = re.search(r"http://\S+", line)[0]  # type: ignore[index]
        headers = {"Content-Type": "application/octet-stream"}
        with urllib.request.urlopen(urllib.request.Request(address, picture, headers), timeout=60) as answer:
            assert json.loads(answer.read())["prediction"] in ("cat", "dog", "owl")


def test_the_next_free_port_is_taken_where_none_is_given() -> None:
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        taken = first.getsockname()[1]
        assert 8700 <= taken < second.getsockname()[1]
        with pytest.raises(embedpipe.EmbedpipeError, match=rf"cannot listen on 127.0.0.1:{taken}"):
            listen("127.0.0.1", taken)


def test_addresses_and_ports_that_cannot_be_are_refused() -> None:
    for options in ({"port": 70_000}, {"host": ""}):
        with pytest.raises(embedpipe.EmbedpipeError, match="must be"):
            embedpipe.view("anything", **options)  # type: ignore[arg-type]


def test_a_device_that_cannot_be_used_is_refused_before_the_page_opens() -> None:
    for run in (embedpipe.view, embedpipe.serve):
        with pytest.raises(embedpipe.EmbedpipeError, match="must be"):
            run("anything", device="wrong")


def test_an_empty_store_is_refused(store: Any, tmp_path: Path) -> None:
    empty = embedpipe.FeatureStore.create(tmp_path / "empty.features", store.spec)
    with pytest.raises(embedpipe.EmbedpipeError, match="holds no rows"):
        make_viewer(empty.path)
