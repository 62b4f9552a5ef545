"""The version of this package, which pyproject.toml reads from here, and files of other versions of a format."""

from __future__ import annotations

__version__ = "0.2.0"


def other_format(found: object, known: int, writer: object = None) -> str:
    """Return what follows the name of a file in the message that refuses it.

    Parameters
    ----------
    found : object
        The version of the format that the file names.
    known : int
        The newest version that this embedpipe reads. It reads all that an earlier release wrote.
    writer : object, optional
        The version of embedpipe that the file says has written it.
    """
    if isinstance(found, int) and found > known:
        needed = f"embedpipe {writer} or newer, which wrote it" if isinstance(writer, str) else "a newer embedpipe"
        return f"has format {found}, and embedpipe {__version__} reads format {known}: install {needed}"
    return f"has format {found!r}, and embedpipe {__version__} reads format {known}: no release has written this"
