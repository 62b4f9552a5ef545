"""The text of an HTML page."""

from __future__ import annotations

import re
from html import unescape

#: Elements whose content is not visible.
_HIDDEN = {"script", "style", "title", "noscript", "template"}
_CELLS = {"td", "th", "option"}
_BLOCKS = {
    "address", "article", "aside", "blockquote", "body", "br", "center", "dd", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav",
    "ol", "p", "pre", "section", "table", "tr", "ul",
}  # fmt: skip

#: Separator of blocks until white space is normalised. It does not occur in texts.
_BREAK = "\x1e"


#: Elements whose content is no markup.
_RAW = ("script", "style")

#: A tag up to its end. Quotes count after an equals sign only, as in browsers. Nothing is tried twice, so that the time
#: is linear.
_TAG = re.compile(r"""</?([a-zA-Z][^\s/>]*+)(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+>""")

#: Numbers that stand for no character and would be slow to read.
_LONG_NUMBER = re.compile(r"&#[0-9]{8,}+")


def html_text(html: str) -> str:
    """Return the visible text of an HTML page, with one line per block.

    Comments and tags end where browsers end them; one that never ends hides the rest of the page. The time grows
    linearly with the length of the page.
    """
    lines = (" ".join(line.split()) for line in "".join(_Page(html).pieces).split(_BREAK))
    return "\n".join(line for line in lines if line)


class _Page:
    """Collects the text of a page in one pass, at any depth of nesting."""

    def __init__(self, html: str) -> None:
        self.pieces: list[str] = []
        self._html = html
        self._invisible: str | None = None
        at = 0
        while at < len(html):
            opening = html.find("<", at)
            end = len(html) if opening < 0 else opening
            self._text(html[at:end])
            at = len(html) if opening < 0 else self._markup(opening)

    def _markup(self, at: int) -> int:
        """Read a tag or comment, or a sign that begins none, and return the place after it."""
        html = self._html
        if html.startswith("<!--", at):
            empty = re.compile("-?>").match(html, at + 4)
            return empty.end() if empty else self._after(re.compile("--!?>"), at + 4)
        if html.startswith(("<!", "<?"), at) or (html.startswith("</", at) and not html[at + 2 : at + 3].isalpha()):
            return self._after(re.compile(">"), at)
        tag = _TAG.match(html, at)
        if tag is None:
            if html[at + 1 : at + 2].isalpha() or html.startswith("</", at):
                return len(html)
            self._text("<")
            return at + 1
        name, closes = tag[1].lower(), html[at + 1] == "/"
        if closes:
            self._end(name)
            return tag.end()
        self._start(name)
        if name in _RAW:
            return self._before(re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE), tag.end())
        return tag.end()

    def _after(self, pattern: re.Pattern[str], at: int) -> int:
        found = pattern.search(self._html, at)
        return found.end() if found else len(self._html)

    def _before(self, pattern: re.Pattern[str], at: int) -> int:
        found = pattern.search(self._html, at)
        return found.start() if found else len(self._html)

    def _start(self, name: str) -> None:
        if self._invisible is None and name in _HIDDEN:
            self._invisible = name
        elif name == "body":  # closes invisible elements of the head
            self._invisible = None
        self._space(name)

    def _end(self, name: str) -> None:
        if name in (self._invisible, "head"):
            self._invisible = None
        self._space(name)

    def _text(self, text: str) -> None:
        if self._invisible is None and text:
            self.pieces.append(unescape(_LONG_NUMBER.sub("&#9999999", text)) if "&" in text else text)

    def _space(self, name: str) -> None:
        if name in _BLOCKS:
            self.pieces.append(_BREAK)
        elif name in _CELLS:
            self.pieces.append(" ")
