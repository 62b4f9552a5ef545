"""HTML pages that hold all they show: they load nothing, run nothing, and can be sent by mail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from embedpipe._utils.atomic import whole_file
from embedpipe.errors import UsageError
from embedpipe.report.drawing import wording
from embedpipe.report.drawing.svg import VERDICT_LOOKS

SUFFIXES = (".html", ".htm")


def check_page(to: str | Path) -> Path:
    """Return a page's path; raise UsageError if its name does not end in .html, or it is a folder."""
    to = Path(to)
    if to.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{str(to)!r} is an HTML page, so its name must end in .html")
    if to.is_dir():
        raise UsageError(f"{str(to)!r} is a folder: name a page in it, {str(to / 'page.html')!r}")
    return to


def write_page(template: str, facts: Mapping[str, Any], to: Path) -> Path:
    """Write a template with what it shows, whole or not at all."""
    page = _environment().get_template(template).render(facts)
    with whole_file(to) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return to


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("embedpipe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: wording.visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(wording, name)
        for name in ("metric_name", "number", "p_value", "percent", "duration", "size", "clip")
    }
    environment.filters |= {
        "sign": lambda verdict: VERDICT_LOOKS[verdict][2],
        "tally": _tally,
    }
    return environment


def _tally(choices: list[Any]) -> str:
    """Write what was chosen, and how often where it was not always the same."""
    counted = Counter(wording.number(one) if isinstance(one, float) else str(one) for one in choices).most_common(4)
    if len(counted) == 1:
        return wording.clip(counted[0][0])
    return ", ".join(f"{wording.clip(one)} ({count} of {len(choices)})" for one, count in counted)
