"""The page of a comparison of old and new rows: what moved, and the items that are most unlike."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from embedpipe._utils.version import __version__
from embedpipe.report.item_previews import preview_items
from embedpipe.report.links import link_to
from embedpipe.report.page import check_page, write_page

#: New items with pictures, and classes.
SHOWN, SIDE, CLASSES = 60, 200, 20


def write_shift_page(facts: Mapping[str, Any], path: str | Path) -> Path:
    """Write the attributes of `embedpipe.cleaning.Shift` as one HTML page; see `Shift.save`."""
    path = check_page(path)
    folder = path.absolute().parent
    rows = facts["moved"].slice(0, SHOWN).to_pylist()
    previews = preview_items([(row.get("uri"), row.get("text")) for row in rows], SIDE)
    cards = [
        {"id": row["id"], "new": row["new"], "preview": preview, "link": link_to(row.get("uri"), folder)}
        for row, preview in zip(rows, previews, strict=True)
    ]
    classes = [] if facts["classes"] is None else facts["classes"].to_pylist()
    classes = sorted(classes, key=lambda row: -abs(row["new"] - row["old"]))[:CLASSES]
    context = {**facts, "cards": cards, "classes": classes, "version": __version__}
    return write_page("shift.html", {**context, "now": datetime.now().astimezone()}, path)
