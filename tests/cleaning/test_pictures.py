"""Duplicates of pictures: their hashes are stored by `embed`, and `clean`, splits and `fit` go by them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from PIL import Image

import embedpipe
from embedpipe.cleaning.clean import clean
from embedpipe.store.schema import PERCEPTUAL_HASH

BACKBONE = {"backbone": "python:tiny_backbone.make", "device": "cpu", "engine": "torch"}
PLANTED = {"encoded": (3, "near"), "smaller": (4, "near"), "turned": (5, "mirrored"), "same": (6, "exact")}


def scene(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((128, 96), Image.Resampling.BICUBIC)


def write(path: Path, image: Image.Image, quality: int = 92) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    path.write_bytes(file.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures of two classes, of which four have copies in the split of test rows."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(30):
        write(folder / "train" / "ab"[number % 2] / f"{number:02d}.jpg", scene(number))
    test = folder / "test" / "a"
    write(test / "encoded.jpg", scene(3), 50)
    write(test / "smaller.jpg", scene(4).resize((90, 68)))
    write(test / "turned.jpg", scene(5).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    write(test / "same.jpg", scene(6))
    write(folder / "test" / "b" / "new.jpg", scene(100))
    return folder


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> embedpipe.FeatureStore:
    return embedpipe.embed(folder, tmp_path_factory.mktemp("store") / "s", progress=False, **BACKBONE)


def test_clean_finds_copies_and_says_how(store: embedpipe.FeatureStore) -> None:
    findings = clean(store, progress=False)
    rows = [row for row in findings.table.to_pylist() if row["kind"] in ("duplicate", "near-duplicate")]
    found = {tuple(sorted((Path(row["id"]).stem, Path(row["related"]).stem))): row["how"] for row in rows}
    expected = {(f"{number:02d}", name): how for name, (number, how) in PLANTED.items()}
    assert found == expected
    assert findings.counts["leak"] == 4
    assert not [note for note in findings.notes if "perceptual" in note]


def test_other_stores_are_compared_by_hashes(store: embedpipe.FeatureStore, folder: Path, tmp_path: Path) -> None:
    other = embedpipe.embed(folder / "test", tmp_path / "other", progress=False, **BACKBONE)
    rows = clean(other, against=store, progress=False).table.to_pylist()
    found = {Path(row["id"]).stem: row["how"] for row in rows if str(row["related"]).startswith(store.path)}
    # The test rows themselves are there too.
    assert found == dict.fromkeys([*PLANTED, "new"], "exact")
    train = embedpipe.embed(folder / "train", tmp_path / "train", progress=False, **BACKBONE)
    rows = clean(other, against=train, progress=False).table.to_pylist()
    found = {Path(row["id"]).stem: row["how"] for row in rows if str(row["related"]).startswith(train.path)}
    assert found == {name: how for name, (_, how) in PLANTED.items()}


def test_splits_and_fit_go_by_the_same_pairs(store: embedpipe.FeatureStore) -> None:
    evaluation = embedpipe.evaluate(store, heads=["centroid"], progress=False)
    (note,) = [note for note in evaluation.notes if "near-duplicates of others" in note]
    assert note.startswith("8 rows (22.9 %) are near-duplicates of others (by perceptual hashes), in 4 groups")
    head = embedpipe.fit(store, "centroid", progress=False)
    assert any("4 held-out rows have near-duplicates (by perceptual hashes)" in note for note in head.report.notes)


def test_hashes_are_kept_filled_and_follow_the_content(folder: Path, tmp_path: Path) -> None:
    """Rows of an older store get no hash, new and changed ones do, and a copy of stored content takes it over."""
    source = tmp_path / "photos"
    for number in range(8):
        write(source / f"{number}.jpg", scene(number))
    store = embedpipe.embed(source, tmp_path / "s", progress=False, **BACKBONE)
    hashes = dict(
        zip(
            *(store.to_arrow(["id", PERCEPTUAL_HASH])[name].to_pylist() for name in ("id", PERCEPTUAL_HASH)),
            strict=True,
        )
    )
    assert len({*hashes.values()}) == 8
    assert {len(each) for each in hashes.values()} == {64}
    write(source / "0.jpg", scene(50))
    (source / "copy.jpg").write_bytes((source / "1.jpg").read_bytes())
    store = embedpipe.embed(source, tmp_path / "s", progress=False, **BACKBONE)
    rows = store.to_arrow(["id", PERCEPTUAL_HASH])
    later = dict(zip(rows["id"].to_pylist(), rows[PERCEPTUAL_HASH].to_pylist(), strict=True))
    assert later["0.jpg"] not in hashes.values()
    assert later["copy.jpg"] == later["1.jpg"] == hashes["1.jpg"]
    assert pc.all(rows[PERCEPTUAL_HASH].is_valid()).as_py()
