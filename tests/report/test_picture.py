"""A picture shows itself in a notebook, and is a path."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from embedpipe.report import Picture, draw_confusion


def test_picture_shows_itself_and_stands_for_its_path(tmp_path: Path) -> None:
    drawn = draw_confusion([[8, 2], [1, 9]], ["cat", "dog"], tmp_path / "confusion.png")
    assert drawn == Picture(tmp_path / "confusion.png")
    assert os.fspath(drawn) == str(drawn) == str(tmp_path / "confusion.png")
    with Image.open(drawn) as opened:
        assert opened.format == "PNG"
    assert drawn._repr_png_() == drawn.path.read_bytes()
    assert drawn._repr_html_() is None
    drawn.path.unlink()
    assert drawn._repr_png_() is None
    assert Picture(Path("a&b/map.html"))._repr_html_() == (
        '<a href="a&amp;b/map.html" target="_blank" rel="noreferrer">a&amp;b/map.html</a>'
    )
