"""The Markdown files for users: the README and the pages of `docs/`, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
#: Written by hand; what is generated from the code needs no check against it.
PAGES = [README, *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_generated" not in page.parts)]

_FENCE = re.compile(r"^(`{3,}|:{3,})\s*(\S*)")
#: A comment at the head of a page: what its reader has made on an earlier page.
_STARTS_WITH = re.compile(r"^% starts with: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line on which the text begins."""

    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    blocks: list[Block] = []
    fence, language, lines, start = "", "", [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence, language, lines, start = mark[1], mark[2], [], number + 1
        elif fence and mark and mark[1] == fence and not mark[2]:
            blocks.append(Block(language, "".join(f"{text}\n" for text in lines), start))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{name_of(page)}:{start - 1}: the block is not closed"
    return blocks


def starts_with(page: Path) -> list[str]:
    """Return the stores and heads that the page's reader has already."""
    return [name for line in _STARTS_WITH.findall(page.read_text(encoding="utf-8")) for name in line.split()]


def commands_of(text: str) -> list[str]:
    """Return the command lines of a shell block, continued lines joined."""
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip() and line[0] != "#"]
