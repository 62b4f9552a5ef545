"""Messages name options as their reader writes them: weights='none' in Python, --weights none on the command line."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import pytest
from typer.main import get_command

import embedpipe
from embedpipe._utils.option_names import command_line, option
from embedpipe.cli.app import app
from embedpipe.errors import EmbedpipeError, UsageError

ROOT = Path(embedpipe.__file__).parent
#: Modules that know only arrays, or only the command line, say what they say to one kind of reader.
ONE_READER = ("cli", "estimators", "statistics")
#: The program that is written into an exported folder, and the card that shows how to call it: its options are its own.
PROGRAM = ("exporting/script/", "exporting/card.py")
#: Words of whole commands, which are the same for every reader.
COMMAND = re.compile(r"`(embedpipe|embed|backbones|fit|evaluate) [^`]*(`|$)")


def files() -> list[Path]:
    paths = ((path, path.relative_to(ROOT)) for path in sorted(ROOT.rglob("*.py")))
    return [path for path, name in paths if name.parts[0] not in ONE_READER and not name.as_posix().startswith(PROGRAM)]


def is_call_of_option(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option"


def left_out(node: ast.AST) -> Iterable[ast.AST]:
    """Return what is no message: docstrings, help texts and what `__repr__` returns."""
    if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__"):
        return ast.walk(node)
    if isinstance(node, ast.Expr):
        return [node.value]
    return ast.walk(node.value) if isinstance(node, ast.keyword) and node.arg == "metadata" else ()


class Parts(NamedTuple):
    """What a file holds, with lines: its strings that are messages, and the names in its calls of `option`."""

    messages: list[tuple[int, str]]
    options: list[tuple[int, Any]]


@functools.cache
def parts(path: Path) -> Parts:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    others = {id(part) for node in nodes for part in left_out(node)}
    strings = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    named = [(node.lineno, node.args[0]) for node in nodes if is_call_of_option(node)]
    return Parts(
        [(node.lineno, str(node.value)) for node in strings if id(node) not in others],
        [(line, name.value) for line, name in named if isinstance(name, ast.Constant)],
    )


def names_in_python() -> set[str]:
    verbs = [member for name in dir(embedpipe) if inspect.isroutine(member := getattr(embedpipe, name))]
    verbs += [embedpipe.Head.predict, embedpipe.SimilarityIndex.build]
    return {parameter for verb in verbs for parameter in inspect.signature(verb).parameters}


def names_on_the_command_line() -> set[str]:
    verbs = get_command(app).commands.values()  # type: ignore[attr-defined]
    return {name for verb in verbs for parameter in verb.params for name in parameter.opts if name.startswith("--")}


@pytest.mark.parametrize(
    ("name", "value", "python", "command"),
    [
        ("weights", "none", "weights='none'", "--weights none"),
        ("weights", "my file", "weights='my file'", "--weights 'my file'"),
        ("near_duplicates", 0.99, "near_duplicates=0.99", "--near-duplicates 0.99"),
        ("trust", True, "trust=True", "--trust"),
        ("folds", np.int64(3), "folds=3", "--folds 3"),
        ("label", ..., "label=...", "--label"),
        ("channels", [1, 2, 3], "channels=[1, 2, 3]", "--channels 1,2,3"),
    ],
)
def test_an_option_is_named_as_its_reader_writes_it(name: str, value: object, python: str, command: str) -> None:
    assert option(name, value) == python
    assert option(name) == name
    with command_line():
        assert option(name, value) == command
        assert option(name) == command.split(" ")[0]
    assert option(name, value) == python


def test_values_of_a_user_stay_as_they_are() -> None:
    for strange in ("--weights none", "weights='none'", "a {b}"):
        with command_line(), pytest.raises(EmbedpipeError, match=re.escape(f"got {strange!r}")):
            embedpipe.load_backbone(strange)


@pytest.mark.no_cover  # reads sources
def test_no_message_writes_an_option_by_hand() -> None:
    names = {name[2:].replace("-", "_") for name in names_on_the_command_line()} & names_in_python()
    flag = re.compile(r"(?<!var\()(?<![!\w-])--([a-z]|$)")
    keyword = re.compile(r"(?<![\w.'#])(\w+)=")
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in files()
        for line, text in parts(path).messages
        if (flag.search(COMMAND.sub("", text)) and text != "--")
        or (" " in text.strip() and names.intersection(keyword.findall(text)))
    ]
    assert not wrong, "write these by embedpipe._utils.option_names.option"


@pytest.mark.no_cover
def test_every_option_that_a_message_names_is_one() -> None:
    """Of the command line, and of a function in Python: a message must not send its reader to nothing."""
    python, command = names_in_python(), names_on_the_command_line()
    named = {name: f"{path.relative_to(ROOT)}:{line}" for path in files() for line, name in parts(path).options}
    assert len(named) > 50
    wrong = {name for name in named if name not in python or f"--{name.replace('_', '-')}" not in command}
    # Of the command line only; in Python, an exit code has no use, and a head may be an estimator.
    assert not {name: named[name] for name in wrong - {"max_failed", "estimator", "predictions"}}


def test_the_command_line_names_options_and_python_names_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(tmp_path)
    with pytest.raises(UsageError, match=r"^drop_last must be >= 0, got -1$"):
        embedpipe.embed(source, tmp_path / "s", drop_last=-1)
    with pytest.raises(SystemExit):
        app(["embed", source, "--to", str(tmp_path / "s"), "--drop-last", "-1"])
    assert capsys.readouterr().err == "embedpipe: --drop-last must be >= 0, got -1\n"
    with pytest.raises(UsageError, match=r"^drop_last must"):
        embedpipe.embed(source, tmp_path / "s", drop_last=-1)
