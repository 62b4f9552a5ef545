"""The text of an HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

#: Elements whose content is not visible.
_INVISIBLE = {"script", "style", "title", "noscript", "template"}
_CELLS = {"td", "th", "option"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
    "ol", "p", "pre", "section", "table", "tr", "ul",
}  # fmt: skip

#: Separator of blocks until white space is normalised. It does not occur in texts.
_BREAK = "\x1e"


def html_text(html: str) -> str:
    """Return the visible text of an HTML page, with one line per block."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).split(_BREAK))
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    """Collects the text of a page in one pass, at any depth of nesting."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._invisible: str | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Begin a block or an invisible element."""
        if self._invisible is None and tag in _INVISIBLE:
            self._invisible = tag
        elif tag == "body":  # closes invisible elements of the head
            self._invisible = None
        self._space(tag)

    def handle_endtag(self, tag: str) -> None:
        """End a block or an invisible element."""
        if tag in (self._invisible, "head"):
            self._invisible = None
        self._space(tag)

    def handle_data(self, data: str) -> None:
        """Keep visible text."""
        if self._invisible is None:
            self.pieces.append(data)

    def _space(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.pieces.append(_BREAK)
        elif tag in _CELLS:
            self.pieces.append(" ")
