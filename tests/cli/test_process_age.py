"""The time that a command reports is that of the clock on the wall."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from embedpipe.cli.running import process_age as module
from embedpipe.cli.running.process_age import process_age


def test_age_of_the_process_grows_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = process_age()
    time.sleep(0.1)
    assert process_age() - before == pytest.approx(0.1, abs=0.09)
    assert before >= time.perf_counter() - module._IMPORTED - 0.2
    monkeypatch.setattr(Path, "read_text", lambda *args, **options: "")  # a system that does not say it
    assert process_age() == pytest.approx(time.perf_counter() - module._IMPORTED, abs=0.1)
