"""Which column of a table means what."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from embedpipe.errors import SourceError, nearest
from embedpipe.sources.column_types import has_field, is_bytes, is_storable, is_string, value_type
from embedpipe.sources.options import Modality, SourceOptions

#: Where the image or the text is, if the user does not say: the first of these that the table has.
PAYLOAD_COLUMNS: dict[Modality, tuple[str, ...]] = {
    "image": ("file_name", "filename", "file", "path", "image", "image_path", "filepath", "uri", "url"),
    "text": ("text", "body", "message", "content", "sentence", "document", "review"),
}

#: Names that the store needs for itself, like every name that begins with "embedding"; ``text`` for texts only.
RESERVED = ("id", "uri", "content_hash", "source_root", "source_size", "source_modified", "label", "split")


@dataclass
class ColumnRoles:
    """Which column of a table means what. Columns of types that no store holds are in ``left_out``."""

    payload: str
    id: str | None
    label: str | None
    split: str | None
    metadata: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def verbatim_columns(options: SourceOptions, modality: Modality) -> list[str]:
    """Return the columns of CSV and TSV whose values are strings whatever they look like: the ids and payloads."""
    chosen = options.image if modality == "image" else options.text
    return [name for name in (options.id or "id", chosen, *PAYLOAD_COLUMNS[modality]) if name]


def find_column_roles(schema: pa.Schema, options: SourceOptions, name: str, modality: Modality) -> ColumnRoles:
    """Find the role of each column of a table, which messages call ``name``.

    Raises
    ------
    SourceError
        A column is missing or of a type that its role cannot have, or its name is one that the store needs.
    """
    payload = options.image if modality == "image" else options.text
    payload = payload or next((column for column in PAYLOAD_COLUMNS[modality] if column in schema.names), None)
    if payload is None:
        hint = ", or all columns where the file has no header line (--header A,B,...)"
        hint = "; if it has texts to embed, name their column (--text COLUMN)" if modality == "image" else hint
        raise SourceError(
            f"{name!r} has no {modality} column among {_shown(schema)}; name one (--{modality} COLUMN){hint}"
        )
    wanted = {modality: payload, "id": options.id, "label": options.label, "split": options.split}
    for role, column in wanted.items():
        if column and column not in schema.names:
            raise SourceError(
                f"{name!r} has no column {column!r} (--{role}){nearest(column, schema.names)}; it has {_shown(schema)}"
            )
    found = {role: wanted[role] or (role if role in schema.names else None) for role in ("id", "label", "split")}
    _check_payload(schema.field(payload), name, modality)
    for role, column in found.items():
        if column and not is_storable(schema.field(column).type):
            raise SourceError(
                f"{role} column {column!r} of {name!r} holds {schema.field(column).type}, not plain values"
            )
    roles = ColumnRoles(payload, found["id"], found["label"], found["split"])
    reserved = RESERVED if modality == "image" else (*RESERVED, "text")
    for column in schema:
        if column.name in {payload, *found.values()}:
            continue
        # Delta does not tell names apart by letter case.
        lower = column.name.lower()
        if lower in reserved or lower.startswith("embedding"):
            raise SourceError(f"column {column.name!r} of {name!r} has a name that the store needs; rename it")
        if same := [other for other in roles.metadata if other.lower() == lower]:
            raise SourceError(f"columns {same[0]!r} and {column.name!r} of {name!r} differ in case only; rename one")
        if is_storable(column.type):
            roles.metadata.append(column.name)
        else:
            roles.left_out[f"column {column.name!r} ({column.type})"] = 1
    return roles


def _check_payload(column: pa.Field, name: str, modality: Modality) -> None:
    type = value_type(column.type)
    if is_string(type) or is_bytes(type):
        return
    if modality == "image" and not has_field(type, "bytes"):
        raise SourceError(
            f"image column {column.name!r} of {name!r} holds {type}, not paths, bytes or structs with bytes"
        )
    if modality == "text" and not pa.types.is_null(type):
        raise SourceError(f"text column {column.name!r} of {name!r} holds {type}, not strings or bytes; convert it")


def _shown(schema: pa.Schema) -> list[str]:
    """Return the columns' names, cut short: without a header line, texts stand in their place."""
    return [name if len(name) <= 40 else f"{name[:40]}..." for name in schema.names]
