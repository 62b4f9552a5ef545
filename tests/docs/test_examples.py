"""The examples in docstrings: those of the public names in a folder with photos, a store and a head."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import embedpipe
from embedpipe._utils.public import source_module
from embedpipe.evaluation import EvaluationGrid, ProtocolEvaluation
from embedpipe.report import draw_neighbours

NAMES = [name for name in embedpipe.__all__ if not name.startswith("__")]
#: Packages of arrays: all of their examples run, and need no folder.
ARRAYS = ("embedpipe.estimators", "embedpipe.splits", "embedpipe.statistics", "embedpipe.neighbours")
IN_FOLDER = [name for name in NAMES if not getattr(embedpipe, name).__module__.startswith(ARRAYS)]
FURTHER = {
    "EvaluationGrid": EvaluationGrid,
    "ProtocolEvaluation": ProtocolEvaluation,
    "draw_neighbours": draw_neighbours,
}
#: Examples that are not run, and why. In the code they have the mark of Python's doctest.
NOT_RUN = {
    **dict.fromkeys(("Advice", "advise"), "measures networks for minutes"),
    **dict.fromkeys(("Benchmark", "benchmark", "finetune"), "trains networks for minutes"),
    **dict.fromkeys(("serve", "view"), "serves until it is stopped"),
    **dict.fromkeys(("push", "pull"), "needs the hub and a token"),
    "export": "writes a graph of a network for half a minute",
    "next": "needs a store with rows without a label",
}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(name: str) -> list[doctest.DocTest]:
    """Return the examples of a name, and of the methods that it defines."""
    value: Any = FURTHER.get(name) or getattr(embedpipe, name)
    documents = {name: value}
    if inspect.isclass(value):
        members = {f"{name}.{member}": function for member, function in vars(value).items()}
        documents |= {key: function for key, function in members.items() if inspect.isfunction(function)}
    parser = doctest.DocTestParser()
    names = {**vars(inspect.getmodule(value)), "embedpipe": embedpipe}  # its own module, as for Python's doctest
    tests = [parser.get_doctest(inspect.getdoc(v) or "", names, key, None, 0) for key, v in documents.items()]
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", NAMES)
def test_public_name_has_an_example(name: str) -> None:
    assert examples_of(name)


def is_skipped(test: doctest.DocTest) -> bool:
    return all(doctest.SKIP in example.options for example in test.examples)


def test_examples_that_are_not_run_have_a_reason() -> None:
    assert {name for name in NAMES if all(map(is_skipped, examples_of(name)))} == {*NOT_RUN}


@pytest.mark.no_cover
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in (*IN_FOLDER, *FURTHER) if name not in NOT_RUN])
def test_examples_give_what_they_show(name: str, open_folder: Callable[[list[str]], Path]) -> None:
    tests = [test for test in examples_of(name) if not is_skipped(test)]
    open_folder(["photos.features", "photos.head", "messages.features"])
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def examples_of_arrays() -> list[doctest.DocTest]:
    """Return the examples of all classes and functions of `ARRAYS`, each from the module that defines it."""
    tests: dict[str, doctest.DocTest] = {}
    for package in map(importlib.import_module, ARRAYS):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(info.name)).items():
                defined_in = source_module(value) if isinstance(value, type) else getattr(value, "__module__", None)
                if defined_in == info.name and (inspect.isclass(value) or inspect.isfunction(value)):
                    examples = doctest.DocTestFinder().find(value, f"{info.name}.{name}", module=False, globs={})
                    tests |= {test.name: test for test in examples if test.examples}
    return list(tests.values())


@pytest.mark.no_cover
@pytest.mark.parametrize("example", examples_of_arrays(), ids=lambda example: example.name.removeprefix("embedpipe."))
def test_examples_of_arrays_print_what_they_show(example: doctest.DocTest) -> None:
    printed: list[str] = []
    failed = doctest.DocTestRunner().run(example, out=printed.append).failed
    assert not failed, "".join(printed)
