"""A store as a notebook shows it."""

from __future__ import annotations

from embedpipe._utils.notebook.html_tables import count_list, html_table
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.store.editing.exclusion import excluded_rows
from embedpipe.store.keyed_table import KeyedTable
from embedpipe.store.scan import count_values


def store_html(table: KeyedTable, spec: BackboneSpec, failures: int) -> str:
    """Return what there is to know of a store as an HTML table."""
    counts = {name: count_values(table, name) for name in ("label", "split") if name in table.schema.names}
    excluded = len(excluded_rows(table))
    facts = {"path": table.path} | {
        "version": table.version,
        "rows": f"{len(table):,}{f', of which {excluded:,} excluded' if excluded else ''}",
        "layers": ", ".join(f"{layer.name} ({layer.dim})" for layer in spec.layers),
        "labels": count_list(counts.get("label", {})),
        "splits": count_list(counts.get("split", {})),
        "failures": f"{failures:,}",
        "backbone": f"{spec.title}, {spec.precision}",
    }
    return html_table("FeatureStore", facts)
