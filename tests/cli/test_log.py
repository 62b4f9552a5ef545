"""``--log json``: every line on standard error is an event that the docs describe."""

from __future__ import annotations

import json
import re
import sys
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command import run
from conftest import TINY
from documents import ROOT
from stored import clusters, make_store

from embedpipe import Head
from embedpipe._utils.messages.events import current_log, event_log
from embedpipe._utils.progress import Progress

PAGE = (ROOT / "docs/reference/log.md").read_text(encoding="utf-8")
DOCUMENTED = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE))


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of standard error; each line is one."""
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        assert datetime.fromisoformat(each["time"]).utcoffset() is not None
        assert each["event"] in DOCUMENTED
    assert (found[0]["event"], found[-1]["event"]) == ("start", "end")
    return found


def of_kind(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in found if each["event"] == kind]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    X, y = clusters(30)
    return make_store(tmp_path_factory.mktemp("log") / "store", X, label=[f"class {number}" for number in y]).path


def test_every_event_of_the_code_is_documented() -> None:
    calls = [
        re.findall(r'(?:\.event|log_event)\(\s*"(\w+)"', path.read_text()) for path in ROOT.glob("embedpipe/**/*.py")
    ]
    assert {name for names in calls for name in names} == DOCUMENTED.keys()


def test_embed_tells_steps_failures_and_the_summary(photos: Path, tmp_path: Path) -> None:
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    arguments = ["embed", photos, "--to", tmp_path / "s", "--backbone", TINY]
    result = run(*arguments, "--log", "json")
    found = events(result.stderr)
    assert [each["id"] for each in of_kind(found, "item_failed")] == ["cat/broken.jpg"]
    (embedding,) = [each for each in of_kind(found, "step_finished") if each["step"] == "embedding"]
    assert (embedding["done"], embedding["total"]) == (13, 13)
    (summary,) = of_kind(found, "summary")
    assert (summary["embedded"], summary["failed_new"]) == (12, 1)
    end = found[-1]
    assert (end["status"], end["exit_code"]) == ("partly failed", 3) == ("partly failed", result.exit_code)
    for line in [*of_kind(found, "start"), *of_kind(found, "step_started"), *of_kind(found, "note"), end]:
        assert line.keys() == {"time", "event", *re.findall(r"`(\w+)`", DOCUMENTED[line["event"]])}


def test_standard_output_is_the_same(store: str) -> None:
    with_log, without = run("info", store, "--log", "json"), run("info", store)
    assert with_log.stdout == without.stdout != ""
    assert without.stderr == ""
    assert [each["event"] for each in events(with_log.stderr)] == ["start", "end"]
    values = run("fit", store, "--head", "centroid", "--json", "--log", "json")
    assert json.loads(values.stdout)["metrics"]
    (summary,) = of_kind(events(values.stderr), "summary")
    assert summary["head"] == "centroid"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere"], "there is no feature store"),
        (["fit", "STORE", "--nonsense"], "No such option: --nonsense"),
        (["fit", "STORE", "--folds", "many"], "--folds"),
        (["fit", "STORE", "--folds", "1"], "--folds must be >= 2"),
        (["fit"], "STORE"),
    ],
)
def test_an_error_is_an_event(store: str, arguments: list[str], message: str) -> None:
    result = run(*(store if word == "STORE" else word for word in arguments), "--log", "json")
    found = events(result.stderr)
    (error,) = of_kind(found, "error")
    assert message in error["message"]
    assert error["exit_code"] == found[-1]["exit_code"] == result.exit_code == 2
    assert not of_kind(found, "message")


def test_what_nobody_foresaw_is_an_event_with_its_traceback(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Head:
        warnings.warn("half of it is missing", stacklevel=1)
        print("to people")
        sys.stderr.write("\r 50 %\r100 %\r\n\n")
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr("embedpipe.heads.fit.fit", broken)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run("fit", store, "--json", "--log=json")
    found = events(result.stderr)
    assert [each["event"] for each in found] == ["start", "warning", "message", "message", "error", "end"]
    assert found[1]["message"] == "half of it is missing"
    assert [each["message"] for each in of_kind(found, "message")] == ["to people", "100 %"]
    assert "LookupError: nobody foresaw this" in found[4]["traceback"]
    assert result.exit_code == found[-1]["exit_code"] == 1
    assert json.loads(result.stdout)["error"]["message"] == "nobody foresaw this"
    assert current_log() is None


def test_a_job_tells_what_came_of_each_table(store: str, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'[fit]\nstore = "{store}"\nto = "x.head"\nhead = "centroid"\nfolds = 0\n')
    (step,) = of_kind(events(run("run", job, "--log", "json").stderr), "job_step")
    assert (step["verb"], step["status"]) == ("fit", "done")


def test_a_failed_prediction_is_an_event(photos: Path, tmp_path: Path) -> None:
    run("embed", photos, "--to", tmp_path / "s", "--backbone", TINY, "-q")
    run("fit", tmp_path / "s", "--head", "centroid", "--folds", "0", "--to", tmp_path / "h", "-q")
    (photos / "cat/broken.jpg").write_bytes(b"no image")
    result = run("predict", tmp_path / "h", photos, "--to", tmp_path / "p.csv", "--trust", "--log", "json")
    assert result.exit_code == 3
    assert [each["id"] for each in of_kind(events(result.stderr), "item_failed")] == ["cat/broken.jpg"]


class Lines:
    """A stream that keeps its text."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """Do nothing."""


def test_a_long_step_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "EVENT_SECONDS", 0.02)
    stream: Any = Lines()
    with event_log(stream), Progress().step("waiting", 4) as advance:
        advance()
        time.sleep(0.2)
    found = [json.loads(line) for line in stream.text.splitlines()]
    assert [found[0]["event"], *{each["event"] for each in found[1:-1]}, found[-1]["event"]] == [
        "step_started",
        "step_progress",
        "step_finished",
    ]
    assert (found[-2]["done"], found[-2]["total"], found[-1]["done"]) == (1, 4, 1)
    assert found[-2]["seconds_left"] == pytest.approx(3 * found[-2]["seconds"], abs=0.01)
