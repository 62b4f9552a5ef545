"""Estimators are pickled by their public path, which stays the same when a file moves."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import joblib
import pytest
from sklearn.base import clone

import embedpipe.estimators
from embedpipe._utils.public import source_module
from embedpipe.estimators import FaissKNNClassifier, TunedRidge
from embedpipe.heads.estimator_files import TRUSTED_CLASSES

PUBLIC = [getattr(embedpipe.estimators, name) for name in embedpipe.estimators.__all__]


@pytest.mark.parametrize("cls", TRUSTED_CLASSES, ids=lambda cls: cls.__name__)
def test_class_in_saved_heads_has_public_path(cls: type) -> None:
    assert cls.__module__ == "embedpipe.estimators"
    assert getattr(embedpipe.estimators, cls.__qualname__) is cls


def test_saved_heads_may_hold_exactly_the_exported_estimators() -> None:
    assert {*TRUSTED_CLASSES} == {*PUBLIC}


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_source_of_methods_is_found(cls: type) -> None:
    module = sys.modules[source_module(cls)]
    assert f"class {cls.__name__}" in inspect.getsource(module)
    assert "def __sklearn_tags__" in inspect.getsource(cls.__sklearn_tags__)  # type: ignore[attr-defined]


def test_source_module_of_a_subclass_is_its_own() -> None:
    subclass = type("Subclass", (TunedRidge,), {"__module__": __name__})
    assert source_module(subclass) == __name__


def predicted(estimator: Any, X: Any) -> list[int]:
    labels: list[int] = estimator.predict(X).tolist()
    return labels


@pytest.mark.long
def test_joblib_sends_estimators_to_other_processes() -> None:
    fitted = FaissKNNClassifier(1).fit([[0.0], [1.0]], [0, 1])
    jobs = [joblib.delayed(predicted)(copy, [[0.9]]) for copy in (fitted, clone(fitted).fit([[0.0], [1.0]], [1, 0]))]
    assert joblib.Parallel(2, backend="loky")(jobs) == [[1], [0]]
