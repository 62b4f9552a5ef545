"""`bundle`: a module with the definitions of embedpipe that it uses, as one file that needs no embedpipe.

The exported script so reads pictures by the very functions of embedpipe, and not by copies that would drift.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = "embedpipe"
GUARD = 'if __name__ == "__main__":'

#: A definition: its module and its name.
_Key = tuple[str, str]


@dataclass(frozen=True)
class _Source:
    """The top level of a module: definitions by name, and what its names are imported from."""

    definitions: dict[str, str]
    used: dict[str, set[str]]
    imports: dict[str, str]
    origins: dict[str, _Key]
    order: list[str] = field(default_factory=list)


def bundle(module: str, stand_ins: Mapping[str, str]) -> str:
    """Return the source of a module followed by the definitions of embedpipe that it needs, in one file.

    Parameters
    ----------
    module : str
        Dotted name. All of it is kept; what runs under ``if __name__ == "__main__"`` comes last.
    stand_ins : mapping of str to str
        Dotted name of a definition -> that of one which takes its place, such as one with fewer dependencies.

    Raises
    ------
    ValueError
        If two modules give different things the same name.
    """
    replaced = {_split(name): _split(other) for name, other in stand_ins.items()}
    found: dict[_Key, None] = {}
    imports: dict[str, str] = {}
    owners: dict[str, _Key] = {}

    def visit(key: _Key, alias: str) -> None:
        key = replaced.get(key, key)
        if owners.setdefault(alias, key) != key:
            raise ValueError(f"{alias!r} must be one thing, and is {owners[alias]} and {key}: rename one of them")
        if key in found:
            return
        found[key] = None
        source = _read(key[0])
        for name in sorted(source.used[key[1]]):
            if name in source.definitions:
                visit((key[0], name), name)
            elif name in source.origins:
                visit(source.origins[name], name)
            elif (line := source.imports.get(name)) and imports.setdefault(name, line) != line:
                raise ValueError(f"{name!r} must be imported in one way, and is by {imports[name]!r} and {line!r}")

    script = _read(module)
    for name in script.definitions:
        visit((module, name), name)
    own = dict.fromkeys(script.definitions[name] for name in script.order)
    others = dict.fromkeys(
        _read(part).definitions[name]
        for part in _in_order({part for part, _ in found if part != module})
        for name in _read(part).order
        if (part, name) in found
    )
    text, _, guarded = _text(module).partition(GUARD)
    docstring = ast.get_docstring(ast.parse(text), clean=False)
    lines = sorted(set(imports.values()), key=lambda line: (line.startswith("from"), line))
    head = f'"""{docstring}"""\n\nfrom __future__ import annotations\n\n' + "\n".join(lines)
    rest = f"# From here on: how embedpipe {_version()} reads and resizes pictures, written from its source."
    return "\n\n\n".join([head, *own, rest, *others, GUARD + guarded])


def _version() -> str:
    from embedpipe._utils.version import __version__

    return __version__


def _split(name: str) -> _Key:
    module, _, last = name.rpartition(".")
    return module, last


@cache
def _text(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


@cache
def _read(module: str) -> _Source:
    text = _text(module)
    lines = text.splitlines()
    source = _Source({}, {}, {}, {})
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            for alias in node.names:
                source.origins[alias.asname or alias.name] = (node.module or "", alias.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                one = type(node)(**{**dict(ast.iter_fields(node)), "names": [alias]})
                source.imports[(alias.asname or alias.name).split(".")[0]] = ast.unparse(one)
        for name in _defined(node):
            source.definitions[name] = _segment(lines, node)
            source.used[name] = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
            source.order.append(name)
    return source


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _segment(lines: list[str], node: ast.stmt) -> str:
    """Return the lines of a definition, with its decorators and the comment above it."""
    decorators = getattr(node, "decorator_list", [])
    start = min([node.lineno, *(part.lineno for part in decorators)]) - 1
    while start and lines[start - 1].startswith("#"):
        start -= 1
    return "\n".join(lines[start : node.end_lineno])


def _in_order(modules: set[str]) -> list[str]:
    """Return modules so that each comes after those that it imports."""
    ordered: list[str] = []

    def visit(module: str) -> None:
        if module in ordered:
            return
        for part, _ in _read(module).origins.values():
            if part in modules:
                visit(part)
        ordered.append(module)

    for module in sorted(modules):
        visit(module)
    return ordered
