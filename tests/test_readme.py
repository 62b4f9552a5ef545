"""The README's `bash` and `python` blocks, run in order in a folder with a few photos."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from skimage import data

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `photos/`, tiles of two of scikit-image's photographs as two classes, and `messages.csv`."""
    for name, photo in (("cat", data.chelsea()), ("coffee", data.coffee())):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            top, left = 20 * (i // 4), 40 * (i % 4)
            tile = Image.fromarray(photo[top : top + 240, left : left + 300])
            tile.save(tmp_path / "photos" / name / f"{i:02d}.jpg")
    (tmp_path / "new_photos").mkdir()
    for i, photo in enumerate((data.chelsea(), data.coffee())):
        Image.fromarray(photo[30:270, 50:350]).save(tmp_path / "new_photos" / f"{i}.jpg")
    prizes = [f"You have won prize number {i}, call now to claim {10 * i} pounds!" for i in range(12)]
    chats = [f"Are you coming home at {i} tonight? I will cook for us." for i in range(12)]
    frame = pd.DataFrame({"body": prizes + chats, "category": ["spam"] * 12 + ["ham"] * 12})
    frame.assign(length=frame["body"].str.len()).to_csv(tmp_path / "messages.csv", index=False)
    new = pd.DataFrame({"body": ["Claim your free prize now, call us!", "I am home, come and eat with us"]})
    new.to_csv(tmp_path / "new_messages.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_blocks_are_of_known_kinds() -> None:
    kinds = [kind for kind, _ in BLOCK.findall(README.read_text())]
    assert set(kinds) == {"bash", "python", "console"}
    assert kinds.count("console") <= 2


@pytest.mark.timeout(1200)  # all that the README shows
def test_blocks_run_in_order(folder: Path) -> None:
    names: dict[str, Any] = {}
    for kind, text in BLOCK.findall(README.read_text()):
        if kind == "bash":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        elif kind == "python":
            exec(compile(text, str(README), "exec"), names)
    assert names["X"].shape == (24, 1280)
    assert set(names["y"]) == {"cat", "coffee"}
    assert names["store"].summary.reused == 24
    assert names["head"].predict("new_photos")["label"].to_pylist() == ["cat", "coffee"]
    assert len((folder / "predictions.csv").read_text().splitlines()) == 3
    assert pd.read_csv(folder / "decisions.csv")["label"].tolist() == ["spam", "ham"]
    assert names["model"].score(names["sms"], names["sms"]["category"]) == 1.0
    for name in ("confusion.png", "similar.png"):
        assert (folder / name).stat().st_size > 5_000
    assert (folder / "map.png").stat().st_size > 10_000
    assert "opinion" in names["store"].refresh().data_columns


def test_what_it_links_to_is_there() -> None:
    for link in re.findall(r"\]\(([A-Z][\w.]*)\)", README.read_text()):
        assert (README.parent / link).exists(), link
    for path in re.findall(r"`((?:pipelines|tests|benchmarks)/[\w./]+)`?", README.read_text()):
        assert (README.parent / path).exists(), path
