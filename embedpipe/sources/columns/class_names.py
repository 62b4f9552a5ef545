"""What Hugging Face's `datasets` writes into the schema of a table: which columns hold images, and names of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedpipe._utils.messages.json_values import parse_json
from embedpipe.errors import SourceError
from embedpipe.sources.column_types import is_list

#: Key of the features in the metadata of a schema.
KEY = b"huggingface"


def image_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that are declared as images."""
    return [name for name, feature in _features(schema).items() if _kind(feature) == "Image" and name in schema.names]


def class_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that are declared as classes, one or several an item."""
    declared = _features(schema).items()
    return [
        name for name, each in declared if "ClassLabel" in (_kind(each), _kind(_item(each))) and name in schema.names
    ]


def with_class_names(table: pa.Table, name: str) -> pa.Table:
    """Return a table with the names of classes in place of their numbers, where its schema declares them.

    The number -1 stands for no label, and becomes null. Lists of numbers become lists of names.

    Raises
    ------
    SourceError
        A number has no name. The table is called ``name``.
    """
    for column, feature in _features(table.schema).items():
        if column not in table.column_names:
            continue
        values = table.column(column)
        names = _class_names(feature)
        if names is not None and pa.types.is_integer(values.type):
            values = pa.chunked_array([_named(chunk, names, column, name) for chunk in values.chunks], pa.string())
        elif (names := _class_names(_item(feature))) is not None and is_list(values.type):
            if not pa.types.is_integer(values.type.value_type):
                continue
            wanted = pa.list_(pa.string())
            values = pa.chunked_array([_named_lists(chunk, names, column, name) for chunk in values.chunks], wanted)
        else:
            continue
        table = table.set_column(table.column_names.index(column), column, values)
    return table


def class_names_of(schema: pa.Schema, column: str, field: str) -> list[str] | None:
    """Return the names of the classes that a field of a column of structs, or of lists of them, numbers."""
    feature = _features(schema).get(column)
    fields = _item(feature) or feature
    feature = fields.get(field) if isinstance(fields, dict) else None
    return _class_names(feature) or _class_names(_item(feature))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the declared features by column; none where the metadata is not that of `datasets`."""
    try:
        features = parse_json((schema.metadata or {})[KEY])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _kind(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _item(feature: Any) -> Any:
    """Return the feature of the items of a list, None for other features."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    return feature.get("feature") if _kind(feature) in ("List", "LargeList", "Sequence") else None


def _class_names(feature: Any) -> list[str] | None:
    names = feature.get("names") if _kind(feature) == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def _named(numbers: pa.Array, names: list[str], column: str, table: str) -> pa.Array:
    values = numbers.cast(pa.int64(), safe=False)  # what wraps around is no number of a class either
    values = pc.if_else(pc.equal(values, -1), pa.scalar(None, pa.int64()), values)
    known = np.asarray(pc.fill_null(pc.and_(pc.greater_equal(values, 0), pc.less(values, len(names))), True))
    if not known.all():
        raise SourceError(
            f"column {column!r} of {table!r} must hold numbers of its {len(names):,} classes, and holds "
            f"{values[int(np.argmin(known))].as_py()}"
        )
    return pa.array(names, pa.string()).take(values)


def _named_lists(lists: Any, names: list[str], column: str, table: str) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths))]).astype(np.int32)
    offset = pa.array(offsets, pa.int32(), mask=np.concatenate([np.asarray(lists.is_null()), [False]]))
    return pa.ListArray.from_arrays(offset, _named(lists.flatten(), names, column, table))
