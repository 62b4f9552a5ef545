"""Messages name options as their reader writes them: weights='none' in Python, --weights none on the command line."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

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


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of `option`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "option":
            yield node


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string but docstrings, help texts and what `__repr__` returns."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        inside: list[ast.AST] = []
        if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "__str__"):
            inside = list(ast.walk(node))
        elif isinstance(node, ast.Expr):
            inside = [node.value]
        elif isinstance(node, ast.keyword) and node.arg == "metadata":
            inside = list(ast.walk(node.value))
        left_out |= {id(each) for each in inside}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


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


def test_no_message_writes_an_option_by_hand() -> None:
    names = {name[2:].replace("-", "_") for name in names_on_the_command_line()} & names_in_python()
    flag = re.compile(r"(?<!var\()(?<![!\w-])--([a-z]|$)")
    keyword = re.compile(r"(?<![\w.'#])(\w+)=")
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {text!r}"
        for path in files()
        for line, text in messages(parsed(path))
        if (flag.search(COMMAND.sub("", text)) and text != "--")
        or (" " in text.strip() and names.intersection(keyword.findall(text)))
    ]
    assert not wrong, "write these by embedpipe._utils.option_names.option"


def test_every_option_that_a_message_names_is_one() -> None:
    """Of the command line, and of a function in Python: a message must not send its reader to nothing."""
    python, command = names_in_python(), names_on_the_command_line()
    named = {
        call.args[0].value: f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in files()
        for call in calls(parsed(path))
        if isinstance(call.args[0], ast.Constant)
    }
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
