"""Importing modules that may be missing, or that take long: those of extras, the user's own, and torch's compiler."""

from __future__ import annotations

import functools
import gc
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from embedpipe.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: torch's compiler, which takes as long to import as torch itself.
_COMPILER = "torch._dynamo"

#: New objects after which Python looks for cycles. With its 700 that takes a sixth of a command: libraries make objects
#: by the hundred thousand while they are imported, and all stay.
OBJECTS = 10_000

#: The module by which OpenVINO and NNCF report to their makers how they are used.
_TELEMETRY = "openvino_telemetry"


def collect_rarely() -> None:
    """Let Python look for cycles less often, for a process that runs nothing but embedpipe."""
    gc.set_threshold(OBJECTS)


class _Deferred(ModuleType):
    """Stands for a module until something of it is used."""

    def __init__(self, name: str, stand_ins: dict[str, ModuleType]) -> None:
        super().__init__(name)
        self._stand_ins = stand_ins

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and (name != "__path__" or self.__name__ != _COMPILER):
            raise AttributeError(name)
        _remove(self._stand_ins)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def compiler_deferred() -> Iterator[None]:
    """Import libraries inside the block without torch's compiler, which is imported when something of it is used.

    torchvision imports it for a function that regions of interest need on a GPU, timm for ``torch.compiler.disable``.
    Stand-ins call these two later. Anything else that is asked of a stand-in imports the compiler at once, so that
    other versions of the libraries take longer and do not fail.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_ins: dict[str, ModuleType] = {}
    compiler, utils = (_Deferred(name, stand_ins) for name in (_COMPILER, f"{_COMPILER}.utils"))

    def is_compile_supported(device: Any) -> Any:
        return importlib.import_module(utils.__name__).is_compile_supported(device)

    vars(utils)["is_compile_supported"] = is_compile_supported
    vars(compiler)["disable"] = _disable_later
    stand_ins |= {module.__name__: module for module in (compiler, utils)}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        _remove(stand_ins)


def _disable_later(function: Any = None, *args: Any, **options: Any) -> Any:
    """Return what ``torch._dynamo.disable`` returns, for a function without the compiler before its first call."""
    if not callable(function):
        return importlib.import_module(_COMPILER).disable(function, *args, **options)

    @functools.wraps(function)
    def run(*values: Any, **named: Any) -> Any:
        return importlib.import_module(_COMPILER).disable(function, *args, **options)(*values, **named)

    return run


def _remove(modules: Mapping[str, ModuleType]) -> None:
    """Remove modules from those that are imported; others of the same name stay."""
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


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
        with compiler_deferred():
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
