"""Option dataclasses: the one home of every default, shared by the Python functions and the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from embedpipe.errors import UsageError, nearest


def build_options(classes: tuple[type, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Sort keyword arguments into option dataclasses by field name.

    Raises UsageError, naming the nearest right name, for a name that none of them has.
    """
    known = {field.name for cls in classes for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise UsageError(f"unknown option {name!r}{nearest(name, known)}: there are {', '.join(sorted(known))}")
    return tuple(
        cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}) for cls in classes
    )
