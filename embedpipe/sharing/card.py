"""The card of a repository: what is known of a store or head, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from embedpipe._utils.version import __version__
from embedpipe.backbones.spec import BackboneSpec
from embedpipe.heads.measured_table import measured_table
from embedpipe.heads.scoring import FitReport
from embedpipe.store import FeatureStore

#: Most values of a column that the card counts.
MOST_VALUES = 50


def store_card(store: FeatureStore, address: str, license: str | None, notes: Sequence[str]) -> str:
    """Return the card of a store: front matter for the hub, then Markdown."""
    from huggingface_hub import DatasetCardData

    configs = [{"config_name": "default", "data_files": [{"split": "train", "path": "part-*.parquet"}]}]
    modality = store.spec.modality
    about = DatasetCardData(license=license, tags=["embedpipe", "feature-store", modality], configs=configs)
    counts = {name: store.counts(name) for name in ("label", "split") if name in store.data_columns}
    parts = [
        f"# Features of {len(store):,} {modality}s",
        f"A feature store of embedpipe {__version__}: one row an item, with the vectors of a frozen network.",
        _license(license),
        "## Vectors\n\n" + _spec(store.spec),
        f"## Rows\n\n{len(store):,} rows with the columns {', '.join(map(_code, store.data_columns))}.",
        *(_counts(name, values) for name, values in counts.items()),
        "\n".join(f"- {_cell(note)}" for note in notes),
        f"## Use\n\n```bash\nembedpipe pull {address} pulled.features\nembedpipe info pulled.features\n```",
        f'```python\nimport embedpipe\n\nstore = embedpipe.pull("{address}", "pulled.features")\n'
        f"X = store.to_numpy({_layer(store.spec)})\n```",
        "The files are Parquet: `datasets.load_dataset`, pandas, Polars and DuckDB read them too.",
    ]
    return _card(about.to_yaml(), parts)


def head_card(manifest: Mapping[str, Any], address: str, license: str | None) -> str:
    """Return the card of a head from the values of its manifest."""
    from huggingface_hub import ModelCardData

    spec = BackboneSpec.from_json(json.dumps(manifest["spec"]))
    report = FitReport(**manifest["report"])
    about = ModelCardData(license=license, library_name="embedpipe", tags=["embedpipe", report.task, spec.modality])
    classes = manifest["classes"] or []
    items = f"new_{spec.modality}s"
    rows = f" It holds the vectors of {report.rows:,} rows that it was fitted on." if manifest["neighbours"] else ""
    parts = [
        f"# {manifest['head']}: {report.task} of {_cell(manifest['label'])}",
        f"A head of embedpipe {manifest['libraries']['embedpipe']} on the vectors of a frozen network, fitted on "
        f"{report.rows:,} rows.{rows}",
        _license(license),
        "## Figures\n\n" + measured_table(report),
        f"## Classes\n\n{', '.join(_code(str(name)) for name in classes)}" if classes else "",
        "## Vectors\n\n" + _spec(spec),
        f"## Use\n\n```bash\nembedpipe pull {address} pulled.head\nembedpipe predict pulled.head {items}\n```",
        f'```python\nimport embedpipe\n\nhead = embedpipe.pull("{address}", "pulled.head")\n'
        f'table = head.predict("{items}")\n```',
    ]
    return _card(about.to_yaml(), parts)


def _card(front: str, parts: Sequence[str]) -> str:
    return f"---\n{front}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _license(license: str | None) -> str:
    return f"Licence: {_cell(license)}." if license else "No licence was given: ask who pushed it before you use it."


def _spec(spec: BackboneSpec) -> str:
    rows = [("backbone", spec.title), ("precision", spec.precision), ("fingerprint", spec.fingerprint())]
    rows += [("weights", f"sha256 {spec.weights_sha256}")] if spec.weights_sha256 else []
    for layer in spec.layers:
        origin = f", reduced from {layer.reduction.layer}" if layer.reduction else ""
        rows.append((f"layer `{layer.name}`", f"{layer.dim:,} values, pooling {layer.pooling}{origin}"))
    if spec.preprocessing is not None:
        given = {name: value for name, value in asdict(spec.preprocessing).items() if value not in (None, "", ())}
        rows.append(("preprocessing", ", ".join(f"{name} {value}" for name, value in given.items())))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows)])


def _counts(name: str, counts: Mapping[str, int]) -> str:
    shown = [f"| {_cell(value)} | {count:,} |" for value, count in list(counts.items())[:MOST_VALUES]]
    more = [f"| and {len(counts) - MOST_VALUES:,} more | |"] if len(counts) > MOST_VALUES else []
    return "\n".join([f"| {name} | rows |", "|---|---:|", *shown, *more])


def _layer(spec: BackboneSpec) -> str:
    return f'layer="{spec.layers[0].name}"' if len(spec.layers) > 1 else ""


def _code(value: str) -> str:
    """Return text as code, which it cannot leave."""
    return "`" + " ".join(value.replace("`", "'").split()) + "`"


def _cell(value: str) -> str:
    """Return text that cannot leave its cell of a table, nor begin an element of HTML."""
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())
