"""The script that classifies a folder: exit codes, output and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY, write_photo
from PIL import Image
from pyarrow import csv
from script import Done, run_script

SCRIPT = Path(__file__).parents[2] / "pipelines" / "classify_folder.py"


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs the script as the main program of this process, which spares many imports."""

    def run(labelled: Path, new: Path, to: Path, *options: str) -> Done:
        words = [str(labelled), str(new), "--to", str(to), "--backbone", TINY, *options]
        return run_script(SCRIPT, words, monkeypatch, capsys)

    return run


@pytest.fixture
def new(tmp_path: Path) -> Path:
    for i in range(4):
        write_photo(tmp_path / "new" / f"{i}.jpg", seed=100 + i)
    return tmp_path / "new"


def test_first_run_embeds_measures_and_draws(
    classify: Callable[..., Done], photos: Path, new: Path, tmp_path: Path
) -> None:
    to = tmp_path / "classified"
    before = {path: path.read_bytes() for root in (photos, new) for path in root.rglob("*.jpg")}
    first = classify(photos, new, to, "--head", "centroid")
    assert first.code == 0, first.err
    for text in (
        "12 embedded, 0 reused",
        "4-fold cross-validation, 12 photos",
        "most frequent class",
        "balanced accuracy",
    ):
        assert text in first.out
    with Image.open(to / "confusion.png") as picture:
        assert picture.format == "PNG"
    assert before == {path: path.read_bytes() for path in before}


def test_predictions_have_a_margin_and_the_least_certain_come_first(
    classify: Callable[..., Done], photos: Path, new: Path, tmp_path: Path
) -> None:
    to = tmp_path / "classified"
    first = classify(photos, new, to, "--head", "centroid")
    rows = csv.read_csv(to / "predictions.csv").to_pylist()
    assert [row["id"] for row in rows] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    for row in rows:
        scores = sorted((row[f"score_{name}"], name) for name in ("cat", "dog", "owl"))
        assert (row["label"], row["second"]) == (scores[2][1], scores[1][1])
        assert row["margin"] == pytest.approx(scores[2][0] - scores[1][0])
    [*_, after] = first.out.split("check these first")
    shown = [line.split(":")[0].strip() for line in after.splitlines() if " behind)" in line]
    assert shown == [row["id"] for row in sorted(rows, key=lambda row: row["margin"])]


def test_second_run_embeds_new_photos_and_keeps_the_head(
    classify: Callable[..., Done], photos: Path, new: Path, tmp_path: Path
) -> None:
    to = tmp_path / "classified"
    classify(photos, new, to, "--head", "centroid")
    fitted = (to / "head" / "manifest.json").read_bytes()
    write_photo(new / "4.jpg", seed=104)
    again = classify(photos, new, to, "--head", "centroid")
    assert again.code == 0
    assert "0 embedded, 12 reused" in again.out
    assert "1 embedded, 4 reused" in again.out
    assert (to / "head" / "manifest.json").read_bytes() == fitted

    (photos / "cat" / "0000.jpg").rename(photos / "dog" / "0000.jpg")
    assert classify(photos, new, to, "--head", "centroid").code == 0
    assert (to / "head" / "manifest.json").read_bytes() != fitted


def test_failed_photos_are_printed_and_have_a_row(
    classify: Callable[..., Done], photos: Path, new: Path, tmp_path: Path
) -> None:
    to = tmp_path / "classified"
    assert classify(photos, new, to, "--head", "ridge").code == 0
    (photos / "cat" / "broken.jpg").write_bytes(b"not a photo")
    (new / "2.jpg").write_bytes(b"nor this")
    done = classify(photos, new, to, "--head", "ridge")
    assert done.code == 3
    assert "failed: cat/broken.jpg: " in done.err
    assert "failed: 2.jpg: " in done.err
    assert "3 predicted, 1 failed" in done.out
    [row] = [row for row in csv.read_csv(to / "predictions.csv").to_pylist() if row["error"]]
    assert row["id"] == "2.jpg"
    assert not row["label"]
    assert row["margin"] is None


def test_two_classes_have_one_score(
    classify: Callable[..., Done], make_photos: Callable[..., Path], new: Path, tmp_path: Path
) -> None:
    done = classify(make_photos(8, ("cat", "dog")), new, tmp_path / "classified", "--head", "centroid")
    assert done.code == 0, done.err
    for row in csv.read_csv(tmp_path / "classified" / "predictions.csv").to_pylist():
        assert row["margin"] == pytest.approx(abs(row["score_dog"]))
        assert {row["label"], row["second"]} == {"cat", "dog"}
        assert (row["label"] == "dog") == (row["score_dog"] > 0)


def test_bad_usage_gives_exit_code_2_and_the_reason(
    classify: Callable[..., Done], photos: Path, new: Path, tmp_path: Path
) -> None:
    done = classify(photos, tmp_path / "nowhere", tmp_path / "classified", "--head", "centroid")
    assert done.code == 2
    assert "nowhere" in done.err
    done = classify(new, photos, tmp_path / "classified")
    assert done.code == 2
    assert "label" in done.err
    done = classify(photos, new, new / "classified")
    assert done.code == 2
    assert "would count as photos" in done.err
    assert not (new / "classified").exists()
