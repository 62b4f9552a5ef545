"""Importing modules that may be missing: those of optional extras, and the user's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from embedpipe.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: The module by which OpenVINO and NNCF report to their makers how they are used.
_TELEMETRY = "openvino_telemetry"


@contextmanager
def working_folder_importable() -> Iterator[None]:
    """Let imports inside the block find modules in the working folder, before the installed packages."""
    try:
        folder = str(Path.cwd())
    except FileNotFoundError:  # the working folder was deleted
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def import_user_module(name: str) -> ModuleType:
    """Import a module from the working folder or from the installed packages. Raises whatever its import raises."""
    with working_folder_importable():
        return importlib.import_module(name)


def import_extra(name: str, extra: str) -> Any:
    """Import a module of an optional extra. Raises MissingExtraError, naming the extra, if it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing(error.name, extra) from error


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table as a pandas DataFrame. Raises MissingExtraError if pandas is not installed."""
    try:
        frame: pd.DataFrame = table.to_pandas()
    except ImportError as error:
        raise MissingExtraError("to_pandas needs pandas: pip install pandas") from error
    return frame


def import_without_telemetry(name: str, extra: str = "cpu") -> Any:
    """Import ``openvino`` or ``nncf`` without the module that reports usage to their makers.

    Raises MissingExtraError naming the extra where the library is not installed.
    """
    if name in sys.modules:
        return import_extra(name, extra)
    modules: dict[str, Any] = sys.modules
    before = modules.get(_TELEMETRY)
    modules[_TELEMETRY] = None  # an import of it fails, which both libraries accept
    try:
        return import_extra(name, extra)
    finally:
        del modules[_TELEMETRY]
        if before is not None:
            modules[_TELEMETRY] = before


def package_folder(name: str, extra: str) -> Path:
    """Return the folder of a package of an optional extra, without importing it. Raises as `import_extra` does."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(name, extra)
    return Path(spec.submodule_search_locations[0])


def _missing(name: str | None, extra: str) -> MissingExtraError:
    return MissingExtraError(
        f"{name} is not installed. It belongs to the extra {extra!r}: pip install 'embedpipe[{extra}]'"
    )
