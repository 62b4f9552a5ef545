"""The docstrings of public estimators have examples, which tests/docs runs, parameters, attributes and references."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest

import embedpipe.estimators
from embedpipe.splits import Splits, load_splits, make_splits

PUBLIC = [getattr(embedpipe.estimators, name) for name in embedpipe.estimators.__all__]


@pytest.mark.parametrize("value", [*PUBLIC, Splits, make_splits, load_splits], ids=lambda value: value.__name__)
def test_public_name_has_an_example(value: Any) -> None:
    assert doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_public_estimator_documents_parameters_attributes_and_references(cls: type) -> None:
    doc = inspect.getdoc(cls) or ""
    titles = [before for before, line in zip(doc.split("\n"), doc.split("\n")[1:], strict=False) if {*line} == {"-"}]
    assert {"Attributes", "References", "Examples"} <= {*titles}
    parameters = list(inspect.signature(cls).parameters)
    described = doc.split("Attributes\n---")[0]
    assert [name for name in parameters if name not in described] == []
