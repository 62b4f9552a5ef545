"""``--json``: one object on standard output for every verb, also for errors, and nothing needless beside it."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command import run
from conftest import TINY
from stored import clusters, make_store

from embedpipe import __version__
from embedpipe.cli import app
from embedpipe.embedding import FailureLimit
from embedpipe.errors import UsageError

HEADER = {"command", "status", "exit_code", "started", "ended", "versions", "error"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    X, y = clusters(30)
    folder = tmp_path_factory.mktemp("json") / "store"
    return make_store(folder, X, label=[f"class {number}" for number in y]).path


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["info", "STORE"], "rows"),
        (["info", "STORE", "--failures"], "failures"),
        (["fit", "STORE", "--head", "centroid"], "metrics"),
        (["search", "STORE", "row-000"], "neighbours"),
        (["index", "STORE"], "recall"),
        (["compact", "STORE"], "merged"),
        (["vacuum", "STORE"], "deleted"),
        (["repair", "STORE"], "lost"),
        (["cache"], "entries"),
        (["doctor", "--seconds", "0"], "findings"),
        (["backbones", "torchvision/resnet18"], "backbones"),
    ],
    ids=" ".join,
)
def test_every_object_says_how_the_run_ended(store: str, arguments: list[str], key: str) -> None:
    words = [store if word == "STORE" else word for word in arguments]
    result = run(*words, "--json")
    values = json.loads(result.stdout)
    assert values.keys() >= HEADER
    assert key in values
    assert key in json.loads(run(*words, "--json", "-q").stdout)  # -q is for what people read
    assert (values["command"], values["exit_code"]) == (arguments[0], result.exit_code)
    assert (values["status"], values["error"]) == ("done", None)
    assert values["versions"]["embedpipe"] == __version__
    assert datetime.fromisoformat(values["started"]) <= datetime.fromisoformat(values["ended"])
    assert result.stderr == ""


def test_embed_lists_failures_and_says_which_are_new(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")

    def embed(*options: str) -> tuple[int, dict[str, Any], str]:
        result = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "--json", *options)
        return result.exit_code, json.loads(result.stdout), result.stderr

    code, first, errors = embed()
    assert (code, first["status"], first["failed"], first["failed_new"], errors) == (3, "partly failed", 1, 1, "")
    (failure,) = first["failures"]
    assert (failure["id"], failure["stage"], failure["new"]) == ("cat/broken.jpg", "decode", True)
    assert first["versions"]["store"] == first["version"]
    code, second, _ = embed()
    assert (code, second["status"], second["failed"], second["failed_new"]) == (0, "done", 1, 0)
    assert not second["failures"][0]["new"]
    assert embed("--max-failed", "0")[0] == 3
    (photos / "dog/broken.jpg").write_bytes(b"no image")
    code, third, _ = embed("--max-failed", "20%")
    assert (code, third["failed"], third["failed_new"]) == (0, 2, 1)
    assert [failure["new"] for failure in third["failures"]] == [True, False]


def test_new_failures_are_printed_once(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    first = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "-q")
    assert (first.exit_code, "cat/broken.jpg" in first.stderr) == (3, True)
    again = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "-q")
    assert (again.exit_code, again.output) == (0, "")
    strict = run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "-q", "--max-failed", "0")
    assert strict.exit_code == 3
    assert strict.stderr.startswith("1 item failed as before, more than --max-failed allows: embedpipe info ")


@pytest.mark.parametrize("command", [command.name or command.callback.__name__ for command in app.registered_commands])
def test_wrong_arguments_are_an_object_too(command: str) -> None:
    result = run(command, "--no-such-option", "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == 2
    assert (values["command"], values["status"]) == (command, "refused")
    assert values["error"]["exit_code"] == 2
    assert "--no-such-option" in values["error"]["message"]


def test_errors_are_objects_with_type_message_and_code(tmp_path: Path) -> None:
    values = json.loads(run("info", tmp_path / "none", "--json").stdout)
    assert values["error"]["type"] == "StoreNotFoundError"
    assert "there is no feature store" in values["error"]["message"]
    assert values["error"]["exit_code"] == values["exit_code"] == 2


def test_what_an_unforeseen_error_leaves_is_an_object(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        print("a library prints")
        raise LookupError("lost")

    monkeypatch.setattr("embedpipe.store.FeatureStore.vacuum", fail)
    result = run("vacuum", store, "--json")
    assert isinstance(result.exception, LookupError)
    assert json.loads(result.stdout)["error"] == {"type": "LookupError", "message": "lost", "exit_code": 1}
    assert "a library prints" in result.stderr


@pytest.mark.parametrize("text", ["", "x", "-1", "5.5", "101%", "5 %", "1e3", "%"])
def test_limit_of_failures_must_be_a_number_or_share(text: str) -> None:
    with pytest.raises(UsageError, match="max_failed must be a number of items"):
        FailureLimit.parse(text)


@pytest.mark.parametrize(
    ("text", "failed", "items", "exceeded"),
    [("0", 0, 9, False), ("0", 1, 9, True), ("3", 3, 9, False), ("2.5%", 2, 100, False), ("2.5%", 3, 100, True)],
)
def test_limit_is_exceeded_by_more_items(text: str, failed: int, items: int, exceeded: bool) -> None:
    assert FailureLimit.parse(text).is_exceeded(failed, items) is exceeded
