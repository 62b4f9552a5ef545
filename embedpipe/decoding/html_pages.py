"""The text of an HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

#: What a reader does not see, unless it is never closed.
_UNSEEN = {"script", "style", "title", "noscript", "template"}
_CELLS = {"td", "th", "option"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
    "ol", "p", "pre", "section", "table", "tr", "ul",
}  # fmt: skip

#: Between blocks, until white space has been made uniform: no text has it.
_BREAK = "\x1e"


def html_text(html: str) -> str:
    """Return what a reader sees of an HTML page, each block on a line: no scripts, no styles, no comments."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).split(_BREAK))
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    """Collects the text of a page in one pass, however deep its elements lie in each other."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen: str | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Begin a block, or what is not seen."""
        if self._unseen is None and tag in _UNSEEN:
            self._unseen = tag
        elif tag == "body":  # whatever was not closed before
            self._unseen = None
        self._space(tag)

    def handle_endtag(self, tag: str) -> None:
        """End a block, or what is not seen."""
        if tag in (self._unseen, "head"):
            self._unseen = None
        self._space(tag)

    def handle_data(self, data: str) -> None:
        """Keep what is seen."""
        if self._unseen is None:
            self.pieces.append(data)

    def _space(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.pieces.append(_BREAK)
        elif tag in _CELLS:
            self.pieces.append(" ")
