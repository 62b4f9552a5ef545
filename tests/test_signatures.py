"""The verbs show their options: in signatures, docstrings, the stub of type checkers and the command line."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_type_hints

import pytest
from parameter_stub import STUB, render, verbs

FUNCTIONS = list(verbs().values())


def options_of(function: Any) -> dict[str, tuple[type, dataclasses.Field[Any]]]:
    """Return the fields of a verb's option dataclasses by name; the first class that has one counts."""
    classes = reversed(function.__option_classes__)
    return {field.name: (cls, field) for cls in classes for field in dataclasses.fields(cls)}


def test_the_stub_is_that_of_the_dataclasses() -> None:
    assert STUB.read_text() == render(), "run python tests/parameter_stub.py"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_signature_shows_every_option_with_type_and_default(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, (cls, field) in options_of(function).items():
        if parameters[name].annotation == get_type_hints(cls)[name]:
            assert parameters[name].default == field.default, name


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_docstring_tells_every_option(function: Any) -> None:
    doc = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert name == "self" or f"\n{name} :" in doc or f", {name}" in doc or f"{name}, " in doc, name


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_an_option_of_two_classes_of_a_verb_is_one_option(function: Any) -> None:
    defaults: dict[str, set[object]] = {}
    for cls in function.__option_classes__:
        for field in dataclasses.fields(cls):
            defaults.setdefault(field.name, set()).add(field.default)
    differing = {name for name, values in defaults.items() if len(values) > 1}
    assert differing <= {"label"}, "one value is given to all classes that have the name"
