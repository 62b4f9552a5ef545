"""OpenVINO and NNCF, imported without the module by which they tell their makers what they are used for."""

from __future__ import annotations

import sys
from typing import Any

from embedpipe._utils.importing import import_extra

_TELEMETRY = "openvino_telemetry"


def import_intel(name: str) -> Any:
    """Import ``openvino`` or ``nncf``. Raises MissingExtraError naming the extra where it is not installed."""
    if name in sys.modules:
        return import_extra(name, "cpu")
    modules: dict[str, Any] = sys.modules
    before = modules.get(_TELEMETRY)
    modules[_TELEMETRY] = None  # what cannot be imported, they do without
    try:
        return import_extra(name, "cpu")
    finally:
        del modules[_TELEMETRY]
        if before is not None:
            modules[_TELEMETRY] = before
