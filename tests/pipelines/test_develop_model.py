"""The script that fine-tunes a backbone on one task for another: exit codes, output and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY
from script import Done, run_script, striped

import embedpipe

SCRIPT = Path(__file__).parents[2] / "pipelines" / "develop_model.py"
#: The pictures look alike to networks as small as these.
SMALL = ["--epochs", "2", "--per-class", "4", "--photos", "45", "--test", "12", "--near-duplicates", "off"]


@pytest.fixture
def develop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs the script as the main program of this process, which spares many imports."""

    def run(source: Path, target: Path, to: Path, *options: str) -> Done:
        words = ["--source", str(source), "--target", str(target), "--to", str(to), *SMALL, *options]
        return run_script(SCRIPT, words, monkeypatch, capsys)

    return run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return striped(tmp_path / "source", "abc", 60, seed=0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return striped(tmp_path / "target", "xy", 40, seed=1)


@pytest.mark.parametrize("backbone", [TINY, pytest.param("timm/test_resnet", marks=pytest.mark.long)])
def test_both_backbones_are_compared_on_the_same_photos(
    develop: Callable[..., Done], source: Path, target: Path, tmp_path: Path, backbone: str
) -> None:
    to = tmp_path / "developed"
    options = [
        "--backbone",
        backbone,
        "--learning-rate",
        "0.01",
        "--weights",
        "default" if backbone == TINY else "none",
    ]
    copied = next(iter(sorted((target / "x").iterdir())))
    (source / "a" / "copy.png").write_bytes(copied.read_bytes())
    done = develop(source, target, to, *options, "--test", "40", "--photos", "99")
    assert done.code == 0, done.err
    assert "left out of the source, because the target has them: 1" in done.out
    assert "8 labelled photos of 2 classes, 32 to measure on" in done.out
    result = json.loads((to / "result.json").read_text())
    assert (
        result["training"]["train_rows"] + result["training"]["validation_rows"] + result["training"]["test"]["rows"]
        == 60
    )
    by_store = {Path(candidate["store"]).name: candidate for candidate in result["evaluation"]["candidates"]}
    means = {name: candidate["estimates"]["accuracy"]["value"] for name, candidate in by_store.items()}
    gain = 100 * (means["target-developed.features"] - means["target-plain.features"])
    assert f"developed less plain        {gain:+6.1f} points" in done.out
    assert result["gain"] == pytest.approx(gain)
    assert result["low"] <= result["gain"] <= result["high"]
    stores = [embedpipe.FeatureStore(to / f"target-{name}.features") for name in ("plain", "developed")]
    assert stores[0].ids() == stores[1].ids()
    assert stores[1].spec.provider == "checkpoint"


def test_wrong_cosine_is_named(develop: Callable[..., Done], source: Path, target: Path, tmp_path: Path) -> None:
    done = develop(source, target, tmp_path / "developed", "--near-duplicates", "abc")
    assert done.code == 2
    assert "argument --near-duplicates: invalid cosine_or_off value: 'abc'" in done.err


def test_second_run_embeds_nothing_and_gives_the_same_gain(
    develop: Callable[..., Done], source: Path, target: Path, tmp_path: Path
) -> None:
    to = tmp_path / "developed"
    first = develop(source, target, to, "--backbone", TINY, "--test", "40", "--photos", "99")
    gain = json.loads((to / "result.json").read_text())["gain"]
    again = develop(source, target, to, "--backbone", TINY, "--test", "40", "--photos", "99")
    assert (first.code, again.code) == (0, 0)
    assert "0 embedded, 40 reused" in again.out
    assert json.loads((to / "result.json").read_text())["gain"] == gain


def test_test_split_of_the_target_is_measured_on(develop: Callable[..., Done], source: Path, tmp_path: Path) -> None:
    target = tmp_path / "split"
    for split, seed in (("train", 1), ("test", 2)):
        striped(target / split, "xy", 20, seed)
    done = develop(source, target, tmp_path / "to", "--backbone", TINY, "--epochs", "0")
    assert done.code == 0, done.err
    assert "kept: epoch 0 of 0 (0 is the plain backbone)" in done.out
    assert "better: neither" in done.out
    rows = (
        embedpipe.FeatureStore(tmp_path / "to" / "target-plain.features").to_arrow(["id", "label", "split"]).to_pylist()
    )
    assert all(row["id"].startswith(row["split"]) for row in rows)
    counts = {(split, label): 0 for split in ("train", "test") for label in "xy"}
    for row in rows:
        counts[row["split"], row["label"]] += 1
    assert counts == {("train", "x"): 4, ("train", "y"): 4, ("test", "x"): 6, ("test", "y"): 6}


def test_failed_photos_are_printed(develop: Callable[..., Done], source: Path, target: Path, tmp_path: Path) -> None:
    (source / "a" / "broken.png").write_bytes(b"not a photo")
    done = develop(source, target, tmp_path / "to", "--backbone", TINY, "--epochs", "0", "--photos", "99")
    assert done.code == 3
    assert "a/broken.png: " in done.out


def test_bad_usage_gives_exit_code_2_and_the_reason(
    develop: Callable[..., Done], source: Path, target: Path, tmp_path: Path
) -> None:
    for one, other, to, options, message in (
        (source / "a", target, tmp_path / "to", [], "must have labelled photos of two classes"),
        (source, tmp_path / "nowhere", tmp_path / "to", [], "nowhere"),
        (source, target, tmp_path / "to", ["--per-class", "99"], "lower --per-class"),
        (source, target, tmp_path / "to", ["--test", "0"], "must be >= 1"),
        (source, target, tmp_path / "to", ["--seed", str(2**32)], "--seed >= 0 and < 2^32"),
        (source, target, target / "to", [], "--to must not be inside a folder of photos"),
    ):
        done = develop(one, other, to, "--backbone", TINY, *options)
        assert done.code == 2
        assert message in done.err
    assert not (target / "to").exists()
