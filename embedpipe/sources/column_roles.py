"""Roles of the columns of a table: payload, id, label, split, metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from embedpipe._utils.option_names import option
from embedpipe.errors import SourceError, nearest
from embedpipe.sources.column_types import has_field, is_bytes, is_label_type, is_storable, is_string, value_type
from embedpipe.sources.columns.box_lists import is_list_of_boxes, list_of_boxes
from embedpipe.sources.columns.class_names import class_columns, image_columns
from embedpipe.sources.options import WITH_ARTICLE, Modality, SourceOptions, or_other_modality

#: Default names of the column of images or texts. The first name that the table has is taken.
PAYLOAD_COLUMNS: dict[Modality, tuple[str, ...]] = {
    "image": ("file_name", "filename", "file", "path", "image", "image_path", "filepath", "uri", "url"),
    "text": ("text", "body", "message", "content", "sentence", "document", "review"),
}

#: A store has a Parquet column and statistics for each column, and time grows with the square of their number.
MOST_COLUMNS = 2_000

#: Usual names of the columns of a box.
BOX_COLUMNS = ("x", "y", "width", "height")

#: Names reserved for the store, in addition to names that begin with "embedding". For texts, ``text`` is reserved too.
RESERVED = (
    "id", "uri", "content_hash", "source_root", "source_size", "source_modified", "label", "split", "set_by_hand",
    "picture_counts", "perceptual_hash", "excluded",
)  # fmt: skip


@dataclass
class ColumnRoles:
    """The columns of each role. ``left_out`` has the columns of types that no store holds.

    ``boxes`` and ``margin`` are those of `SourceOptions`. ``notes`` says what was chosen without a name.
    """

    payload: str
    id: str | None
    label: str | None
    split: str | None
    metadata: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    boxes: str | None = None
    margin: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def beside_payload(self) -> list[str]:
        """The columns of all roles but the payload."""
        named = (self.id, self.label, self.split, list_of_boxes(self.boxes))
        return [*self.metadata, *(column for column in named if column)]


def is_reserved(name: str) -> bool:
    """Return whether only the store may write a column of that name; names of Delta are not case-sensitive."""
    return name.lower() in RESERVED or name.lower().startswith("embedding")


def verbatim_columns(options: SourceOptions, modality: Modality) -> list[str]:
    """Return the columns of a CSV or TSV file that are read as strings: ids and payloads."""
    chosen = options.image if modality == "image" else options.text
    return [name for name in (options.id or "id", chosen, *PAYLOAD_COLUMNS[modality]) if name]


def refuse_wide(count: int, name: str) -> None:
    """Raise SourceError for more columns than `MOST_COLUMNS`."""
    if count > MOST_COLUMNS:
        raise SourceError(
            f"a table must have at most {MOST_COLUMNS:,} columns, and {name!r} has {count:,}: leave some out"
        )


def find_column_roles(schema: pa.Schema, options: SourceOptions, name: str, modality: Modality) -> ColumnRoles:
    """Return the role of each column of a table. Error messages call the table ``name``.

    Raises
    ------
    SourceError
        A column is missing, has a wrong type for its role, or a reserved name.
    """
    payload = options.image if modality == "image" else options.text
    refuse_wide(len(schema), name)
    in_any_case: dict[str, str] = {}
    for column in schema.names:
        in_any_case.setdefault(column.strip().lower(), column)
    in_any_case.update({column: column for column in schema.names})
    payload = payload or _payload_column(schema, in_any_case, name, modality)
    if payload is None:
        is_csv = name.lower().endswith((".csv", ".tsv"))
        hint = f", or name all columns of a file without a header line ({option('header', 'A,B')})" if is_csv else ""
        if modality == "image":
            advice = or_other_modality(f"to embed texts, name their column ({option('text', 'COLUMN')})", modality)
            hint = f"; {advice}"
        raise SourceError(
            f"{name!r} needs {WITH_ARTICLE[modality]} column, and has {_shown(schema)}: "
            f"name one ({option(modality, 'COLUMN')}){hint}"
        )
    boxes = list_of_boxes(options.boxes)
    wanted = {modality: payload, "id": options.id, "label": options.label, "split": options.split, "boxes": boxes}
    for role, column in wanted.items():
        if column and column not in schema.names:
            raise SourceError(
                f"{name!r} has no column {column!r} ({option(role, ...)}){nearest(column, schema.names) or '.'} "
                f"Available: {_shown(schema)}"
            )
    chosen = {role: wanted[role] or in_any_case.get(role) for role in ("id", "label", "split")}
    only_classes = class_columns(schema) if chosen["label"] is None else []
    if len(only_classes) == 1:
        chosen["label"] = only_classes[0]
    _check_payload(schema.field(payload), name, modality)
    for role, column in chosen.items():
        fits = is_label_type if role == "label" else is_storable
        if column and not fits(schema.field(column).type):
            kinds = "plain values or lists of labels" if role == "label" else "plain values"
            raise SourceError(
                f"{role} column {column!r} of {name!r} must hold {kinds}, got {schema.field(column).type}"
            )
    roles = ColumnRoles(
        payload, chosen["id"], chosen["label"], chosen["split"], boxes=options.boxes, margin=options.box_margin
    )
    if len(only_classes) == 1:
        roles.notes = (f"column {only_classes[0]!r} is the label, as it alone holds classes",)
    replaced = {role: wanted[role] for role in chosen if wanted[role]}
    lower: dict[str, str] = {}
    for column in schema:
        if column.name in {payload, boxes, *chosen.values()}:
            continue
        if _is_row_index(column):
            roles.left_out[f"index without a name (column {column.name!r})"] = 1
            continue
        if not is_storable(column.type):
            if modality == "image" and is_list_of_boxes(column.type):
                advice = f"to embed these parts of the images, give {option('boxes', column.name)}"
                roles.notes += (f"column {column.name!r} has boxes; {advice}",)
            roles.left_out[f"column {column.name!r} ({column.type})"] = 1
            continue
        if (role := column.name.strip().lower()) in replaced:
            roles.left_out[f"column {column.name!r}, as {option(role, replaced[role])} is given"] = 1
            continue
        if is_reserved(column.name) or (modality == "text" and column.name.lower() == "text"):
            raise SourceError(f"column name {column.name!r} of {name!r} is reserved for the store: rename the column")
        if (same := lower.setdefault(column.name.lower(), column.name)) != column.name:
            raise SourceError(
                f"columns {same!r} and {column.name!r} of {name!r} differ in letter case only: rename one"
            )
        roles.metadata.append(column.name)
    if modality == "image" and options.boxes is None and {*BOX_COLUMNS} <= {*roles.metadata}:
        named = ",".join(BOX_COLUMNS)
        roles.notes += (f"columns {named} are kept; to embed these parts of the images, give {option('boxes', named)}",)
    return roles


def _payload_column(schema: pa.Schema, in_any_case: Mapping[str, str], name: str, modality: Modality) -> str | None:
    """Return the column of images or texts by its name; images in the table itself come before paths."""
    named = [in_any_case[known] for known in PAYLOAD_COLUMNS[modality] if known in in_any_case]
    if modality == "text":
        return next(iter(named), None)
    declared = image_columns(schema)
    inside = [
        column.name
        for column in schema
        if column.name in declared
        or has_field(column.type, "bytes")
        or (column.name in named and is_bytes(column.type))
    ]
    if len(inside) > 1 and not {*inside} & {*named}:
        raise SourceError(f"{name!r} has several columns of images, {inside}: name one ({option('image', 'COLUMN')})")
    return next((column for column in [*named, *inside] if column in inside), next(iter(named), None))


def _is_row_index(column: pa.Field) -> bool:
    """Return whether a column is an index that pandas wrote without a name: the numbers of rows are no metadata."""
    if re.fullmatch(r"__index_level_\d+__", column.name):  # of a Parquet file, or of a frame in memory
        return True
    # of a CSV file, and of one that was read and written again
    return pa.types.is_integer(column.type) and bool(re.fullmatch(r"|Unnamed: \d+", column.name))


def _check_payload(column: pa.Field, name: str, modality: Modality) -> None:
    type = value_type(column.type)
    if is_string(type) or is_bytes(type):
        return
    if modality == "image" and not has_field(type, "bytes"):
        raise SourceError(
            f"image column {column.name!r} of {name!r} must hold paths, bytes or structs with bytes, got {type}"
        )
    if modality == "text" and not pa.types.is_null(type):
        raise SourceError(f"text column {column.name!r} of {name!r} must hold strings or bytes, got {type}")


def _shown(schema: pa.Schema) -> list[str]:
    """Return the column names, shortened, as a file without a header line has texts in their place."""
    names = [name if len(name) <= 40 else f"{name[:40]}..." for name in schema.names]
    return names if len(names) <= 40 else [*names[:40], f"and {len(names) - 40} more"]
