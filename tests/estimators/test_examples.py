"""The examples in docstrings run, and every public estimator has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import pytest

import embedpipe.estimators
from embedpipe._utils.public import source_module
from embedpipe.splits import Splits, load_splits, make_splits

PACKAGES = ("embedpipe.estimators", "embedpipe.splits", "embedpipe.statistics", "embedpipe.neighbours")
PUBLIC = [getattr(embedpipe.estimators, name) for name in embedpipe.estimators.__all__]


def examples_in(value: Any, name: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(value, name, module=False, globs={}) if test.examples]


def all_examples() -> list[doctest.DocTest]:
    """Return the examples of all classes and functions of the packages, each from the module that defines it."""
    tests: dict[str, doctest.DocTest] = {}
    for package in map(importlib.import_module, PACKAGES):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(info.name)).items():
                defined_in = source_module(value) if isinstance(value, type) else getattr(value, "__module__", None)
                if defined_in == info.name and (inspect.isclass(value) or inspect.isfunction(value)):
                    tests |= {test.name: test for test in examples_in(value, f"{info.name}.{name}")}
    return list(tests.values())


@pytest.mark.parametrize("example", all_examples(), ids=lambda example: example.name.removeprefix("embedpipe."))
def test_example_prints_what_it_shows(example: doctest.DocTest) -> None:
    printed: list[str] = []
    failed = doctest.DocTestRunner().run(example, out=printed.append).failed
    assert not failed, "".join(printed)


@pytest.mark.parametrize("value", [*PUBLIC, Splits, make_splits, load_splits], ids=lambda value: value.__name__)
def test_public_name_has_an_example(value: Any) -> None:
    assert examples_in(value, value.__name__)


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_public_estimator_documents_parameters_attributes_and_references(cls: type) -> None:
    doc = inspect.getdoc(cls) or ""
    titles = [before for before, line in zip(doc.split("\n"), doc.split("\n")[1:], strict=False) if {*line} == {"-"}]
    assert {"Attributes", "References", "Examples"} <= {*titles}
    parameters = list(inspect.signature(cls).parameters)
    described = doc.split("Attributes\n---")[0]
    assert [name for name in parameters if name not in described] == []
