"""The script that searches a folder: exit codes, output and files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import TINY
from PIL import Image
from pyarrow import csv
from script import Done, run_script

import embedpipe

SCRIPT = Path(__file__).parents[2] / "pipelines" / "near_neighbours.py"


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs the script as the main program of this process, which spares many imports."""

    def run(folder: Path, *arguments: str, to: Path) -> Done:
        words = [str(folder), *arguments, "--to", str(to), "--backbone", TINY]
        return run_script(SCRIPT, words, monkeypatch, capsys)

    return run


def test_copies_are_all_pairs_above_the_threshold(search: Callable[..., Done], photos: Path, tmp_path: Path) -> None:
    to = tmp_path / "neighbours"
    for i in range(3):
        shutil.copy(photos / "cat" / "0000.jpg", photos / "owl" / f"copy{i}.jpg")
    done = search(photos, "--copies", "0.999", to=to)
    assert done.code == 0, done.err
    [store] = to.glob("*.features")
    X = embedpipe.FeatureStore(store).to_numpy().astype(np.float64)
    ids = embedpipe.FeatureStore(store).ids()
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    near = {(ids[i], ids[j]) for i, j in combinations(range(len(ids)), 2) if X[i] @ X[j] >= 0.999}
    copies = csv.read_csv(to / "copies.csv").to_pylist()
    assert {(row["id"], row["copy_id"]) for row in copies} == near
    assert len(copies) == len(near) >= 6
    assert [row["score"] for row in copies] == sorted((row["score"] for row in copies), reverse=True)
    assert sum(row["same_bytes"] for row in copies) == 6
    assert f"cosine of at least 0.999: {len(near)} in" in done.out


def test_without_a_query_a_sample_is_searched_and_drawn(
    search: Callable[..., Done], photos: Path, tmp_path: Path
) -> None:
    to = tmp_path / "neighbours"
    search(photos, to=to)
    with Image.open(to / "neighbours.png") as picture:
        assert picture.format == "PNG"
    rows = csv.read_csv(to / "neighbours.csv").to_pylist()
    assert len({row["query"] for row in rows}) == 6
    assert len(rows) == 6 * 8

    again = search(photos, to=to)
    assert "0 embedded, 12 reused" in again.out


def test_queries_by_id_by_path_and_of_another_folder(search: Callable[..., Done], photos: Path, tmp_path: Path) -> None:
    to, outside = tmp_path / "neighbours", tmp_path / "outside.jpg"
    shutil.copy(photos / "dog" / "0001.jpg", outside)
    done = search(photos, "cat/0000.jpg", str(photos / "cat" / "0000.jpg"), str(outside), "-k", "3", to=to)
    assert done.code == 0, done.err
    rows = csv.read_csv(to / "neighbours.csv").to_pylist()
    assert [row["rank"] for row in rows] == [1, 2, 3] * 3
    by_id, by_path, by_copy = rows[:3], rows[3:6], rows[6:]
    assert [row["id"] for row in by_id] == [row["id"] for row in by_path]
    assert "cat/0000.jpg" not in {row["id"] for row in by_id}
    assert by_copy[0]["id"] == "dog/0001.jpg"
    assert by_copy[0]["score"] == pytest.approx(1, abs=1e-5)
    assert not (to / "copies.csv").exists()


def test_failed_photos_and_queries_are_printed_and_give_exit_code_3(
    search: Callable[..., Done], photos: Path, tmp_path: Path
) -> None:
    to, broken = tmp_path / "neighbours", tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    done = search(photos, str(broken), to=to)
    assert done.code == 3
    assert "failed: broken.jpg: " in done.err
    assert not (to / "neighbours.png").exists()
    shutil.copy(broken, photos / "cat" / "0000.jpg")
    done = search(photos, "owl/0002.jpg", to=to)
    assert done.code == 3
    assert "failed: cat/0000.jpg: " in done.err
    assert "cat/0000.jpg" not in csv.read_csv(to / "neighbours.csv")["id"].to_pylist()


def test_photos_that_are_all_excluded_are_refused(search: Callable[..., Done], photos: Path, tmp_path: Path) -> None:
    to = tmp_path / "neighbours"
    assert search(photos, to=to).code == 0
    [path] = to.glob("*.features")
    store = embedpipe.FeatureStore(path)
    store.exclude(pa.table({"id": store.ids(), "excluded": ["blurred"] * len(store)}))
    done = search(photos, to=to)
    assert done.code == 2
    assert "no photo can be searched for: all are excluded" in done.err


def test_bad_usage_gives_exit_code_2_and_the_reason(search: Callable[..., Done], photos: Path, tmp_path: Path) -> None:
    done = search(photos, "nothing.jpg", to=tmp_path / "neighbours")
    assert done.code == 2
    assert "has no id 'nothing.jpg'" in done.err
    done = search(photos, "--copies", "2", to=tmp_path / "neighbours")
    assert done.code == 2
    assert "--copies must be a cosine in (0, 1], got 2.0" in done.err
    done = search(photos, to=photos / "neighbours")
    assert done.code == 2
    assert "would count as photos" in done.err
