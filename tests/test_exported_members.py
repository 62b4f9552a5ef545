"""What `embedpipe` exports: sorted, importable, documented, and where it says it is."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import embedpipe

NAMES = [name for name in embedpipe.__all__ if not name.startswith("__")]
PACKAGE = Path(embedpipe.__file__).parent
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_all_is_sorted_and_without_doubles() -> None:
    assert embedpipe.__all__ == sorted(set(embedpipe.__all__))


def test_home_of_every_exported_name() -> None:
    assert sorted(embedpipe._HOME) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_name_is_what_its_home_has(name: str) -> None:
    home = importlib.import_module(f"embedpipe.{embedpipe._HOME[name]}")
    assert getattr(embedpipe, name) is getattr(home, name)


def test_type_checkers_see_the_same_names() -> None:
    guarded: set[str] = set()
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        if isinstance(node, ast.If):
            guarded |= {alias.name for child in node.body if isinstance(child, ast.ImportFrom) for alias in child.names}
    assert sorted(guarded) == NAMES


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'embeed'"):
        embedpipe.embeed  # noqa: B018


def test_dir_lists_what_is_exported() -> None:
    assert dir(embedpipe) == sorted(embedpipe.__all__)


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


@pytest.mark.parametrize("package", PACKAGES)
def test_subpackage_exports_what_it_says(package: str) -> None:
    module = importlib.import_module(f"embedpipe.{package}")
    assert module.__doc__
    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name).__doc__ is not None
