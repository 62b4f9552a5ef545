"""The rules of CONTRIBUTING.md that a program can check: messages without riddles, and tests of one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

# These tests read sources and run none of embedpipe's code.
pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parent.parent
#: What messages said before: a predicate without its noun, or a thing that is "no thing".
RIDDLES = re.compile(
    r"\b(is|are) none\b|(?<!there )\bis no (?!longer|such)\b|\b(levelled|settled|told|hand-?off)\b|^it must\b"
)
MOST_ASSERTS = 9


def raised_texts(path: Path) -> Iterator[str]:
    """Yield the literal parts of each message that a file raises, joined by …."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            parts = [each.value for each in ast.walk(node.exc) if isinstance(each, ast.Constant)]
            yield "…".join(part for part in parts if isinstance(part, str))


def asserts_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and number of asserts of each test of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node.name, sum(isinstance(part, ast.Assert) for part in ast.walk(node))


@pytest.mark.parametrize("text", ["'q' is none", "margin=-1 is no width", "it must be at least 2"])
def test_riddles_are_recognised(text: str) -> None:
    assert RIDDLES.search(text)


def test_messages_have_no_riddles() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {text}"
        for path in sorted((ROOT / "embedpipe").rglob("*.py"))
        for text in raised_texts(path)
        if RIDDLES.search(text)
    ]
    assert not found


def test_tests_hold_one_thing() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name, asserts in asserts_of(path)
        if asserts > MOST_ASSERTS
    ]
    assert not long
