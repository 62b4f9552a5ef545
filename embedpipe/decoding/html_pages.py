"""The text of an HTML page."""

from __future__ import annotations

import re

from embedpipe.importing import import_extra

_UNSEEN = ["script", "style", "head", "title", "noscript", "template"]
_CELLS = ["td", "th", "option"]
_BLOCKS = [
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
    "ol", "p", "pre", "section", "table", "tr", "ul",
]  # fmt: skip

#: Between blocks, until white space has been made uniform: no text has it.
_BREAK = "\x1e"

#: Outlook writes such into the middle of pages, and they make the parser take a page for XML.
_INSTRUCTION = re.compile(r"<\?[^>]*>")


def html_text(html: str) -> str:
    """Return what a reader sees of an HTML page: each block on a line of its own, without scripts, styles and comments.

    Raises
    ------
    MissingExtraError
        BeautifulSoup is not installed.
    """
    soup = import_extra("bs4", "text").BeautifulSoup(_INSTRUCTION.sub("", html) + "\n", "html.parser")
    for tag in soup(_UNSEEN):
        tag.decompose()
    for tags, space in ((_BLOCKS, _BREAK), (_CELLS, " ")):
        for tag in soup(tags):
            tag.insert_before(space)
            tag.insert_after(space)
    lines = (" ".join(line.split()) for line in soup.get_text().split(_BREAK))
    return "\n".join(line for line in lines if line)
