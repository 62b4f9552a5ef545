"""Who may ask: hosts, other sites, the token; and the headers of every answer."""

from __future__ import annotations

from typing import Any

import pytest
from serving.conftest import Api, make_viewer
from starlette.testclient import TestClient

from embedpipe.serving.app import create_app
from embedpipe.serving.guard import HEADERS
from embedpipe.serving.listening import address_of, hosts_of, listen

HERE = "http://127.0.0.1:8700"


@pytest.mark.parametrize("host", ["127.0.0.1:8700", "localhost", "LOCALHOST:1", "[::1]:8700"])
def test_own_names_are_answered(api: Api, host: str) -> None:
    assert api.client.get("/api/store", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "192.168.0.9:8700", "", "[::1", "a@localhost.x"]
)
def test_foreign_hosts_are_refused(api: Api, host: str) -> None:
    answer = api.client.get("/", headers={"host": host})
    assert answer.status_code == 400
    assert "host" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_from_other_sites_are_refused(api: Api, headers: dict[str, str]) -> None:
    assert api.client.post("/api/queries/words", headers=headers, json={"words": "a"}).status_code == 403
    assert api.client.get("/api/store", headers=headers).status_code == 403
    assert api.client.get("/", headers=headers).status_code == 200  # a link from another site


def test_requests_of_the_page_itself_are_answered(api: Api) -> None:
    headers = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert api.client.get("/api/store", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/main.js", "/api/store", "/api/nothing", "/../conftest.py"])
def test_every_answer_has_the_policy(api: Api, path: str) -> None:
    answer = api.client.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.fixture(scope="module")
def locked(store: Any) -> TestClient:
    return TestClient(create_app(make_viewer(store.path), token="sesame"), base_url=HERE, follow_redirects=False)


def test_without_the_token_nothing_is_answered(locked: TestClient) -> None:
    for path in ("/", "/main.js", "/api/store", "/api/openapi.json", "/?token=wrong", "/api/store?token=sesame"):
        assert locked.get(path).status_code == 401, path
    assert locked.get("/", headers={"cookie": "embedpipe-8700=wrong"}).status_code == 401
    assert locked.get("/", headers={"cookie": b'embedpipe-8700=\xe4; a="\\'}).status_code == 401


def test_the_address_with_the_token_sets_a_cookie_that_scripts_cannot_read(locked: TestClient) -> None:
    answer = locked.get("/?token=sesame")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    cookie = answer.headers["set-cookie"].split(";")[0]
    assert locked.get("/api/store", headers={"cookie": cookie}).status_code == 200
    assert locked.get("/api/store", headers={"authorization": "Bearer sesame"}).status_code == 200


def test_a_server_for_others_is_called_by_addresses_and_its_own_names_only(store: Any) -> None:
    client = TestClient(create_app(make_viewer(store.path), hosts_of("0.0.0.0")), base_url="http://192.168.0.9")
    assert client.get("/api/store").status_code == 200
    assert client.get("/api/store", headers={"host": "evil.example"}).status_code == 400
    assert hosts_of("127.0.0.1") == ("localhost", "127.0.0.1", "::1")


def test_address_is_that_of_the_socket() -> None:
    with listen("127.0.0.1", 0) as listening:
        assert address_of("127.0.0.1", listening) == f"http://127.0.0.1:{listening.getsockname()[1]}/"
