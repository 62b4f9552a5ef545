"""The API behaves as its OpenAPI description says, whatever is sent: requests are made by Schemathesis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving.conftest import make_viewer

from embedpipe.serving.app import create_app
from embedpipe.serving.guard import LOCAL

#: A description cannot say which rows, keys and conditions a store has, so `positive_data_acceptance` is not checked.
CASES = settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck])


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_api_is_as_described_whatever_is_sent(copied: Callable[[], Path]) -> None:
    viewer = make_viewer(copied(), edit=True)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", create_app(viewer, (*LOCAL, "testserver")))
    count = 0

    def check(case: Any) -> None:
        nonlocal count
        count += 1
        if count % 4 and "key" in (case.query or {}):  # any other key is that of other items
            case.query["key"] = viewer.collection.key
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    for endpoint in schema.get_all_operations():
        operation = endpoint.ok()
        for mode in GenerationMode:
            with contextlib.suppress(Unsatisfiable):  # without parameters, nothing can be wrong
                CASES(given(case=operation.as_strategy(generation_mode=mode))(check))()
    assert count >= 500
