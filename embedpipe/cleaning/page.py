"""The page of findings: items side by side with the row to which they relate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.version import __version__
from embedpipe.cleaning.kinds import MEANINGS
from embedpipe.report.item_previews import preview_items
from embedpipe.report.links import link_to
from embedpipe.report.page import check_page, write_page

#: Findings of a kind with pictures; the others are counted. Pictures of all kinds keep a page below 20 MB.
SHOWN = 60
SIDE = 200
#: Columns that findings have if the store has them.
OPTIONAL = ("label", "proposed", "split", "related_split")


def write_findings_page(table: pa.Table, facts: Mapping[str, Any], path: str | Path) -> Path:
    """Write findings as one HTML page; see `Findings.to_html`."""
    path = check_page(path)
    folder = path.absolute().parent
    sections = []
    for kind, (heading, meaning) in MEANINGS.items():
        found = table.filter(pc.equal(table["kind"], kind))
        shown = found.slice(0, SHOWN).to_pylist()
        items = [(row.get("uri"), row.get("text")) for row in shown]
        others = [(row.get("related_uri"), row.get("related_text")) for row in shown]
        previews = preview_items([*items, *others], SIDE)
        cards = [
            {
                "row": dict.fromkeys(OPTIONAL) | row,
                "preview": previews[number],
                "other": previews[number + len(shown)] if row["related"] is not None else None,
                "link": link_to(row.get("uri"), folder),
            }
            for number, row in enumerate(shown)
        ]
        if cards:
            sections.append({"kind": kind, "heading": heading, "meaning": meaning, "cards": cards, "count": len(found)})
    context = {**facts, "sections": sections, "data": Path(facts["store"]).stem, "version": __version__}
    return write_page("findings.html", {**context, "now": datetime.now().astimezone()}, path)
