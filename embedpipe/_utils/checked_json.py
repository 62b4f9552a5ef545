"""JSON files with a checksum of their values, which notice damage and edits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.checksums import checksum

#: Name of the checksum among the values.
CHECKSUM = "checksum"


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values that JSON can hold, with their checksum as the last one."""
    return {**values, CHECKSUM: _checksum(values)}


def without_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without their checksum. Raises ValueError if it is missing or that of other values."""
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    if values.get(CHECKSUM) != _checksum(rest):
        raise ValueError("the values do not have the checksum of the file")
    return rest


def write_json(values: Mapping[str, Any], path: Path, indent: int | None = None) -> None:
    """Write values with their checksum, completely or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(with_checksum(values), indent=indent), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote. Raises ValueError if the file is damaged or was edited, and OSError."""
    try:
        return without_checksum({**json.loads(path.read_text(encoding="utf-8"))})
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _checksum(values: Mapping[str, Any]) -> str:
    """Return the checksum of values as JSON holds them: tuples are lists, and keys are strings."""
    return checksum(json.dumps(json.loads(json.dumps(values)), sort_keys=True).encode())
