"""Progress: a bar on a terminal, lines elsewhere, nothing when it is switched off."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

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
    monkeypatch.setattr(Progress, "LINE_SECONDS", 0.0)
    for show in (None, False):
        with Progress(show).step("counting", 2) as advance:
            advance()
        Progress(show).say("hello")
    assert capfd.readouterr().err == ""
    with Progress(True).step("counting", 2, "sheep") as advance:
        advance(2)
    Progress(True).say("hello")
    line, greeting = capfd.readouterr().err.splitlines()
    assert line.startswith("counting: 2 of 2, ")
    assert line.endswith("sheep/s, 0 s left")
    assert greeting == "hello"
