"""A script of ``pipelines/``, run as the main program of this process, which spares many imports."""

from __future__ import annotations

import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Done:
    """What a run of a script left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def run_script(
    script: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Done:
    """Run a script with these words on its command line."""
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    return Done(int(end.value.code or 0), *capsys.readouterr())
