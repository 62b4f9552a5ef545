"""`Picture`: a file that was drawn, which a notebook shows."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    r"""A PNG file or a page on disk. A notebook shows the file, or a link to the page.

    `open`, Pillow and `os` take it as a path.

    Attributes
    ----------
    path : pathlib.Path
        The file.

    Examples
    --------
    >>> import tempfile
    >>> from embedpipe.report import draw_confusion
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     picture = draw_confusion([[8, 2], [1, 9]], ["cat", "dog"], f"{folder}/confusion.png")
    ...     picture.path.name, open(picture, "rb").read(4)
    ('confusion.png', b'\x89PNG')
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str | None:
        if self.path.suffix.lower() == ".png":
            return None
        return f'<a href="{escape(self.path.as_posix())}" target="_blank" rel="noreferrer">{escape(str(self.path))}</a>'

    def _repr_png_(self) -> bytes | None:
        if self.path.suffix.lower() != ".png":
            return None
        try:
            return self.path.read_bytes()
        except OSError:  # it was deleted or moved: the notebook shows its path
            return None
