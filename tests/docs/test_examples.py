"""The examples in the docstrings of the public names, run in a folder with photos, a store and a head."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import embedpipe

NAMES = [name for name in embedpipe.__all__ if not name.startswith("__")]
#: `tests/estimators/test_examples.py` runs the examples of estimators and splits.
ELSEWHERE = ("embedpipe.estimators", "embedpipe.splits")
RUN_HERE = [name for name in NAMES if not getattr(embedpipe, name).__module__.startswith(ELSEWHERE)]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples_of(name: str) -> list[doctest.DocTest]:
    """Return the examples of a name, and of the methods that it defines."""
    value: Any = getattr(embedpipe, name)
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


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RUN_HERE)
def test_examples_give_what_they_show(name: str, open_folder: Callable[[list[str]], Path]) -> None:
    tests = [test for test in examples_of(name) if not all(doctest.SKIP in e.options for e in test.examples)]
    if not tests:
        pytest.skip("its examples are not to be run")
    open_folder(["photos.features", "photos.head", "messages.features"])
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in tests:
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
