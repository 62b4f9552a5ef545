"""Photos that are embedded again, in another order and with one more, get the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

import embedpipe


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_photos_embedded_again_have_the_same_vectors(tmp_path: Path, engine: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(photos / f"{i}.png")
    options = {"backbone": TINY, "engine": engine, "progress": False}
    first = embedpipe.embed(photos, tmp_path / "first", batch_size=4, **options)
    for i in range(9):
        (photos / f"{i}.png").rename(photos / f"{8 - i}-again.png")
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(photos / "0-0.png")
    second = embedpipe.embed(photos, tmp_path / "second", batch_size=3, **options)
    assert len(second) == 10
    again = second.take([f"{8 - i}-again.png" for i in range(9)])
    np.testing.assert_array_equal(again, first.take([f"{i}.png" for i in range(9)]))
