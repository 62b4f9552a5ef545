"""Progress: a bar on a terminal, lines elsewhere, nothing when it is switched off."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from embedpipe._utils.notebook.step_count import StepCount, duration
from embedpipe._utils.progress import Progress

SCRIPT = """
import time
from embedpipe._utils.progress import Progress
with Progress({show}).step("counting", 40, "sheep") as advance:
    for _ in range(40):
        time.sleep(0.02)
        advance()
"""


def run_on_terminal(show: str) -> str:
    """Return what a script writes to a terminal."""
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(show=show)], stderr=child, env=env)
    os.close(child)
    output = b""
    try:
        while chunk := os.read(parent, 4096):
            output += chunk
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert process.wait(60) == 0
    return output.decode()


def test_terminal_shows_a_bar_with_rate_and_time_left() -> None:
    output = run_on_terminal("None")
    assert "counting" in output
    assert "40/40" in output
    assert "sheep/s" in output
    assert "0:00:0" in output
    assert run_on_terminal("False") == ""


def test_lines_are_written_only_if_requested(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "FIRST_SECONDS", 0.01)
    for show in (None, False):
        with Progress(show).step("counting", 2):
            time.sleep(0.03)
        Progress(show).say("hello")
    assert capfd.readouterr().err == ""
    with Progress(True).step("counting", 4, "sheep") as advance:
        advance(2)
        time.sleep(0.05)
    Progress(True).say("hello")
    line, greeting = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"counting: 2 of 4 sheep, [\d.,]+ sheep/s, [\d.]+ s left", line)
    assert greeting == "hello"


def test_steps_that_do_not_advance_and_those_of_unknown_length_say_what_goes_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Progress, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(Progress, "LINE_SECONDS", 0.01)
    show = Progress(True)
    with show.step("reading"), show.step("counting", 4, "sheep"):
        time.sleep(0.1)
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if re.fullmatch(r"reading, 0\.\d s so far", line)]) > 1
    assert len([line for line in lines if re.fullmatch(r"counting: 0 of 4 sheep, 0\.\d s so far", line)]) > 1
    with show.step("reading", unit="rows") as advance:
        advance(3)
        time.sleep(0.05)
    assert re.match(r"reading: 3 rows, [\d.,]+ rows/s\n", capfd.readouterr().err)


def test_quick_steps_write_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress(True).step("counting", 2) as advance:
        advance(2)
    assert capfd.readouterr().err == ""


def test_time_left_is_the_rest_at_the_rate_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("embedpipe._utils.notebook.step_count.time.monotonic", lambda: next(clock))
    count = StepCount("fitting", 50, "fits", lambda: "slow disk")
    count.add(20)
    assert count.now() == "fitting: 20 of 50 fits, 2.0 fits/s, 15 s left; slow disk"


def test_one_thing_is_counted_as_one() -> None:
    for total, unit, words in ((1, "items", "1 item"), (1, "batches", "1 batch"), (2, "runs", "2 runs")):
        assert StepCount("step", total, unit).ended().startswith(f"step: 0 of {words} in")


def test_durations() -> None:
    texts = [duration(seconds) for seconds in (3.21, 45.2, 125, 3780)]
    assert texts == ["3.2 s", "45 s", "2 min 05 s", "1 h 03 min"]
