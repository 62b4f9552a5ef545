"""A script of ``pipelines/``, run as the main program of this process, which spares many imports; pictures for it."""

from __future__ import annotations

import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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


def striped(folder: Path, classes: str, count: int, seed: int) -> Path:
    """Noisy pictures of stripes, wider from class to class."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        wave = 60 * np.sin(np.arange(40) * np.pi / (2 + i % len(classes)))
        pixels = 128 + wave[None, :, None] + rng.normal(0, 30, (40, 40, 3))
        path = folder / classes[i % len(classes)] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return folder
