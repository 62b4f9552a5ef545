"""HTML pages as single files, which need no network and, but for the map, no script."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.folder_kinds import check_file
from embedpipe._utils.notebook.html_tables import visible
from embedpipe.errors import UsageError
from embedpipe.report.drawing import wording
from embedpipe.report.drawing.svg import VERDICT_LOOKS

SUFFIXES = (".html", ".htm")


def check_page(to: str | Path) -> Path:
    """Return the path of a page; raise UsageError if it does not end in .html, and what `check_file` raises."""
    to = Path(to)
    if to.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the name of an HTML page must end in .html, got {str(to)!r}")
    if to.is_dir():
        raise UsageError(f"an HTML page must be a file, and {str(to)!r} is a folder: write {str(to / 'page.html')!r}")
    return check_file(to)


def write_page(template: str, variables: Mapping[str, Any], to: Path) -> Path:
    """Write a template with its variables, atomically."""
    page = _environment().get_template(template).render(variables)
    with whole_file(to) as part:
        part.write_text(page, encoding="utf-8", newline="\n")
    return to


def read_template(name: str) -> str:
    """Return a template as it is, such as a script."""
    environment = _environment()
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("embedpipe.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(wording, name)
        for name in (
            *("metric_name", "metric_value", "metric_interval", "metric_difference", "difference_unit", "margin"),
            *("number", "p_value", "percent", "duration", "size", "clip", "counted"),
        )
    }
    environment.filters |= {
        "sign": lambda verdict: VERDICT_LOOKS[verdict][2],
        "tally": _tally,
    }
    environment.filters |= {"breakable": _breakable, "prose": _prose}
    return environment


def _breakable(name: str) -> Markup:
    """Return a name such as ``timm/resnet50_clip`` that may be continued on the next line after its signs."""
    return Markup(re.sub(r"([/_]+)", r"\1<wbr>", str(escape(visible(name)))))


def _prose(text: str, most: int = 1000) -> Markup:
    """Return a note with what stands between backticks, as a terminal shows commands, as code."""
    text = visible(wording.with_minus(wording.clip(text, most)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _tally(values: list[Any]) -> str:
    """Return the most frequent values of a hyperparameter, with counts if there is more than one."""
    counts = Counter(wording.number(value) if isinstance(value, float) else str(value) for value in values)
    common = counts.most_common(4)
    if len(common) == 1:
        return wording.clip(common[0][0])
    return ", ".join(f"{wording.clip(text)} ({count} of {len(values)})" for text, count in common)
