"""The nightly check for shifts: exit codes, JSON and page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from script import run_script, striped

import embedpipe

SCRIPT = Path(__file__).parents[2] / "pipelines" / "monitor.py"
Night = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Night:
    """Return a function that runs one night, and gives the exit code, the report and the output."""
    embedpipe.embed(striped(tmp_path / "usual", "ab", 40, seed=0), tmp_path / "usual.features", backbone=TINY)

    def run(source: Path, *options: str) -> tuple[int, dict[str, Any], str]:
        words = [str(tmp_path / "usual.features"), str(source), "--to", str(tmp_path / "out"), "--backbone", TINY]
        done = run_script(SCRIPT, [*words, *options], monkeypatch, capsys)
        return done.code, json.loads((tmp_path / "out" / "shift.json").read_text()), done.out + done.err

    return run


def test_usual_pictures_are_no_alarm_and_other_ones_are(night: Night, tmp_path: Path) -> None:
    code, report, said = night(striped(tmp_path / "day1", "ab", 20, seed=1))
    assert (code, report["status"], report["rows"], said) == (0, "done", [40, 20], "")
    assert report["embedded"] == {"seen": 20, "embedded": 20, "failed": 0, "pruned": 0}
    assert report["expected_accuracy"] is not None
    other = striped(tmp_path / "day2", "abcdefgh", 24, seed=2)
    code, report, said = night(other)
    assert (code, report["status"], report["rows"]) == (1, "shifted", [40, 24])
    assert said.startswith("SHIFTED: p=0.0")
    assert report["moved"][0]["uri"].endswith(".png")
    page = (tmp_path / "out" / "shift.html").read_text()
    assert "The new rows are shifted" in page
    assert page.count("<img") == 24
    next(other.rglob("*.png")).unlink()
    code, report, _ = night(other, "--least-auc", "1.01")  # found, and too small to matter
    assert (code, report["shifted"], report["embedded"]["pruned"]) == (0, True, 1)


def test_what_cannot_be_compared_is_refused(night: Night, tmp_path: Path) -> None:
    code, report, said = night(striped(tmp_path / "day", "ab", 4, seed=1), "--split", "train")
    assert (code, report["status"]) == (2, "refused")
    assert said.startswith("monitor: ")
    assert "has no column split" in report["error"]["message"]


def test_a_night_that_failed_leaves_no_items_of_another_source(night: Night, tmp_path: Path) -> None:
    assert night(striped(tmp_path / "day1", "ab", 20, seed=1))[0] == 0
    reference, other = tmp_path / "usual.features", striped(tmp_path / "day2", "ab", 24, seed=2)
    reference.rename(tmp_path / "moved")
    assert night(other)[0] == 2
    (tmp_path / "moved").rename(reference)
    assert night(other)[1]["rows"] == [40, 24]


def test_new_items_get_the_layers_and_settings_of_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"backbone": "timm/test_vit", "weights": "none", "layer": "blocks.3", "pooling": "mean", "image_size": 64}
    usual = embedpipe.embed(striped(tmp_path / "usual", "ab", 12, seed=0), tmp_path / "usual.features", **chosen)
    words = [usual.path, str(striped(tmp_path / "day", "ab", 12, seed=1)), "--to", str(tmp_path / "out")]
    assert run_script(SCRIPT, words, monkeypatch, capsys).code == 0
    assert embedpipe.FeatureStore(tmp_path / "out" / "new.features").spec == usual.spec
