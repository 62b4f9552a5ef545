"""HTML in notebooks for values of other libraries' types, which cannot have a `_repr_html_` of ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from embedpipe._utils.notebook.progress_bar import notebook_shell

Html = Callable[[Any], str | None]


def show_as_html(cls: type, html: Html) -> None:
    """Let the notebook, if there is one, show values of a type as HTML.

    Parameters
    ----------
    cls : type
    html : callable
        Returns HTML, or None for a value that is not ours: it is shown as it was before.
    """
    shell = notebook_shell()
    if shell is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    before = formatter.lookup_by_type(cls) if cls in formatter else None
    if not (isinstance(before, partial) and before.func is _html_of):
        formatter.for_type(cls, partial(_html_of, html, before))


def _html_of(html: Html, before: Html | None, value: Any) -> str | None:
    return html(value) or (before(value) if before else None)
