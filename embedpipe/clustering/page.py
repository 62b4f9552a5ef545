"""The page of clusters: sizes, words, and the most typical items of each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.version import __version__
from embedpipe.report.item_previews import preview_items
from embedpipe.report.links import link_to
from embedpipe.report.page import check_page, write_page
from embedpipe.store import FeatureStore

#: Clusters and items of each that are shown: pictures of all keep a page below 20 MB.
SHOWN, ITEMS, SIDE = 100, 8, 200


def write_clusters_page(table: pa.Table, facts: Mapping[str, Any], path: str | Path) -> Path:
    """Write clusters as one HTML page; see `Clusters.to_html`. ``table`` is that of the groups."""
    path = check_page(path)
    folder = path.absolute().parent
    store = FeatureStore(facts["store"])
    groups = table.slice(0, SHOWN).to_pylist()
    ids = [id for group in groups for id in group["representatives"][:ITEMS]]
    text = ["text"] if store.spec.modality == "text" and "text" in store.data_columns else []
    rows = store.table.rows(pa.array(ids, pa.string()), ["id", "uri", *text])
    rows = rows.take(pc.index_in(pa.array(ids, pa.string()), value_set=rows["id"].combine_chunks()))
    items = rows.to_pylist()
    previews = preview_items([(item["uri"], item.get("text")) for item in items], SIDE)
    cards = iter(zip(items, previews, strict=True))
    for group in groups:
        shown = [next(cards) for _ in group["representatives"][:ITEMS]]
        group["cards"] = [
            {"id": item["id"], "preview": preview, "link": link_to(item["uri"], folder)} for item, preview in shown
        ]
    context = {
        **facts,
        "groups": groups,
        "count": len(table),
        "rows": pc.sum(table["rows"]).as_py(),
        "between": pc.sum(table["between"]).as_py(),
        "data": Path(facts["store"]).stem,
        "version": __version__,
        "now": datetime.now().astimezone(),
    }
    return write_page("clusters.html", context, path)
