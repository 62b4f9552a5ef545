"""Numbers of things in messages."""

from __future__ import annotations


def counted(count: int, one: str, several: str | None = None) -> str:
    """Return a number of things in words, such as ``1 item``, ``2,000 items`` or ``3 classes``.

    Parameters
    ----------
    count : int
    one : str
        The noun for one thing.
    several : str, optional
        The noun for several; by default with an s.
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"
