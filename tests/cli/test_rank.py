"""The verb `rank`: output, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import run
from conftest import TINY
from PIL import Image
from pyarrow import csv
from stored import clusters, make_store

from embedpipe.evaluation.ranking import probing


@pytest.fixture
def tinted(tmp_path: Path) -> Path:
    """Forty pictures of two tints in class folders."""
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 120, (32, 32, 3)).astype(np.uint8)
        pixels[..., 2 * (i % 2)] += 90
        path = tmp_path / "tinted" / ("red", "blue")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "tinted"


def test_table_and_csv_file(tinted: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    shown = run("rank", tinted, "--backbones", f"{TINY}, timm/no_such_network", "--to", table, "-v", "--device", "cpu")
    assert shown.exit_code == 3, shown.output
    assert "'label', 40 items, 2 classes: 5 x 5-fold stratified cross-validation" in shown.stdout
    assert "baseline (most frequent class): 50.0 %" in shown.stdout
    assert "no other backbone to compare with" in shown.stdout
    assert "embedpipe: timm/no_such_network: UnknownBackboneError" in shown.stderr
    rows = csv.read_csv(table).to_pylist()
    assert [row["backbone"] for row in rows] == ["python/tiny_backbone:make", "timm/no_such_network"]
    assert rows[0]["verdict"] == "best"
    assert rows[1]["failed"].startswith("UnknownBackboneError")


def test_json_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "REPEATS", 1)
    for name, spread in (("near", 0.3), ("far", 2.5)):
        X, y = clusters(60, spread=spread)
        make_store(tmp_path / name, X, name, label=y.tolist())
    ranking = json.loads(run("rank", tmp_path / "far", tmp_path / "near", "--json").stdout)
    assert [row["name"] for row in ranking["rows"]] == ["timm/near", "timm/far"]
    assert ranking["rows"][1]["difference"]["verdict"] == "worse"
    shown = run("rank", tmp_path / "far", tmp_path / "near")
    assert shown.exit_code == 0, shown.output
    assert "best: timm/near; all others are significantly worse" in shown.stdout
    assert "unknown" in shown.stdout


def test_wrong_options_have_exit_code_2(tinted: Path, tmp_path: Path) -> None:
    assert "--backbones must name at least one" in run("rank", tinted).stderr
    for options in (["--to", "ranking.png"], ["--backbones", TINY, "--sample", "1"], ["--backbones", "timm/x"]):
        assert run("rank", tinted, *options).exit_code == 2
    assert run("rank", tinted, tmp_path / "nowhere").exit_code == 2
    assert run("rank", tmp_path / "nowhere", "--backbones", TINY).exit_code == 2
