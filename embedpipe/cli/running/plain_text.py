"""Text of others on a terminal: control characters are shown, never obeyed, and secrets of URLs are not shown.

Every verb prints through `plain_output`, whatever it prints: an escape sequence in a file name, a label or the message
of a library would colour, hide or rewrite what stands on the terminal, and characters that reverse the direction of
text would show one name as another. Only what embedpipe draws itself, tables and progress bars, goes around it.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from embedpipe._utils.messages.masking import masked

#: Characters that change the direction of the text around them.
DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escaped(text: str, keep: str = "") -> str:
    """Return a text with backslash escapes for control characters, line breaks, surrogates and changes of direction.

    The characters in ``keep`` stay. Passwords and keys of URLs are masked.
    """
    text = masked(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep or not _is_control(letter) else repr(letter)[1:-1] for letter in text)


def _is_control(letter: str) -> bool:
    return letter in DIRECTIONS or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


class PlainStream:
    """A text stream that escapes control characters, except line ends and tabs. The rest is the stream's own.

    Attributes
    ----------
    terminal : text stream
        The stream itself, for what embedpipe draws.
    """

    def __init__(self, stream: Any) -> None:
        self.terminal = stream

    def write(self, text: str) -> int:
        """Write text without control characters."""
        # Progress bars of other libraries, such as those of downloads, go back to the beginning of their line.
        bar = "\r" if text.startswith("\r") and self.terminal.isatty() else ""
        self.terminal.write(bar + escaped(text[len(bar) :].replace("\r\n", "\n"), "\n\t"))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each line without control characters."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.terminal, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Let everything that the block prints go through `PlainStream`."""
    before = sys.stdout, sys.stderr
    wrapped: list[Any] = [stream if isinstance(stream, PlainStream) else PlainStream(stream) for stream in before]
    sys.stdout, sys.stderr = wrapped
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
