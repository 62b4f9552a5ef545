"""JSON that comes from files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import embedpipe
from embedpipe._utils.messages.json_values import parse_json

#: Modules that parse what they have written themselves, or say something else of what is nested too deeply.
OTHERS = {
    "_utils/checksums.py",
    "_utils/messages/json_values.py",
    "exporting/script/table.py",
    "finetuning/advice/forecasting/gain_model.py",
    "finetuning/run_settings.py",
    "sources/tables/table_files.py",
    "store/adopting.py",
}


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_json_that_is_nested_too_deeply_is_a_value_error(opened: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(opened * 200_000)
    assert parse_json(b'{"a": [1.5, null]}') == {"a": [1.5, None]}


def test_json_of_files_is_parsed_by_one_function() -> None:
    package = Path(embedpipe.__file__).parent
    calls = re.compile(r"\bjson\.loads?\(")
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if calls.search(path.read_text())}
    assert found == OTHERS
