"""What `embedpipe` exports: few names, importable, documented, each written once."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import embedpipe

NAMES = [name for name in embedpipe.__all__ if not name.startswith("__")]
PACKAGE = Path(embedpipe.__file__).parent
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
MOST = 60


def dotted(stub: Path) -> str:
    return ".".join(stub.parent.relative_to(PACKAGE.parent).parts)


def test_few_names_at_the_top() -> None:
    assert len(embedpipe.__all__) <= MOST


@pytest.mark.parametrize("stub", STUBS, ids=dotted)
def test_every_name_is_listed_once(stub: Path) -> None:
    names = [alias.name for node in ast.parse(stub.read_text()).body for alias in node.names]  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    assert sorted(importlib.import_module(dotted(stub)).__all__) == sorted(names)


@pytest.mark.parametrize("stub", STUBS, ids=dotted)
def test_no_name_is_that_of_a_submodule(stub: Path) -> None:
    """Importing the submodule would put it in the place of the name."""
    modules = {path.stem for path in stub.parent.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not modules & set(importlib.import_module(dotted(stub)).__all__)


@pytest.mark.parametrize("stub", STUBS, ids=dotted)
def test_every_name_can_be_imported_and_is_documented(stub: Path) -> None:
    module = importlib.import_module(dotted(stub))
    assert module.__doc__
    for name in module.__all__:
        assert getattr(module, name).__doc__ is not None, name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="embeed"):
        embedpipe.embeed  # type: ignore[attr-defined]  # noqa: B018


def test_dir_lists_what_is_exported() -> None:
    assert sorted(dir(embedpipe)) == sorted(embedpipe.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_public_name_is_documented(name: str) -> None:
    value = getattr(embedpipe, name)
    # A dataclass without a docstring gets its signature for one.
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")
    if not inspect.isclass(value):
        return
    for member, function in vars(value).items():
        if not member.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
            assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"
