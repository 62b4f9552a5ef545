"""Option dataclasses: the one home of every default and help text, shown in the signatures of the verbs."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from embedpipe.errors import UsageError, suggest

F = TypeVar("F", bound=Callable[..., Any])

#: The numpydoc sections that follow "Other Parameters".
_LATER = re.compile(r"^(Raises|Warns|See Also|Notes|References|Examples)\n-+$", re.MULTILINE)


def build_options(classes: tuple[type, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Make option dataclasses from keyword arguments; each takes the arguments that it has fields for.

    Raises UsageError, with the most similar name, for an argument that is a field of none.
    """
    known = {field.name for cls in classes for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise UsageError(f"unknown option {name!r}{suggest(name, sorted(known))}")
    return tuple(
        cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}) for cls in classes
    )


def takes_options(*classes: type) -> Callable[[F], F]:
    """Show the fields of option dataclasses as keyword-only parameters of a function that takes ``**options``.

    ``inspect.signature``, ``help`` and completion then show each field with its type and default, and the docstring
    lists it under "Other Parameters" with its help text. Type checkers read the same from `parameters.pyi`.
    """

    def decorate(function: F) -> F:
        declared = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        options: dict[str, tuple[inspect.Parameter, str]] = {}
        for cls in classes:
            for field in dataclasses.fields(cls):
                if field.name not in options and all(field.name != parameter.name for parameter in declared):
                    options[field.name] = _parameter(cls, field), field.metadata["help"]
        shown = [parameter for parameter, _ in options.values()]
        function.__signature__ = inspect.signature(function).replace(parameters=[*declared, *shown])  # type: ignore[attr-defined]
        function.__option_classes__ = classes  # type: ignore[attr-defined]
        function.__doc__ = _documented(function.__doc__ or "", list(options.values()))
        return function

    return decorate


def describe_type(type_: Any) -> str:
    """Return the type of an option as source code: ``str | None``, ``Literal["auto", "torch"]``."""
    origin, parts = typing.get_origin(type_), typing.get_args(type_)
    if origin is Literal:
        return "Literal[" + ", ".join(f'"{part}"' for part in parts) + "]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(describe_type(part) for part in parts)
    return "None" if type_ is type(None) else inspect.formatannotation(type_)


def _parameter(cls: type, field: dataclasses.Field[Any]) -> inspect.Parameter:
    type_ = typing.get_type_hints(cls)[field.name]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=type_)


def _documented(doc: str, options: list[tuple[inspect.Parameter, str]]) -> str:
    """Return a docstring with the section "Other Parameters" inserted where numpydoc expects it."""
    section = "Other Parameters\n----------------\n"
    for parameter, text in options:
        kind = describe_type(parameter.annotation).replace("Literal[", "{").replace('"]', '"}')
        section += f"{parameter.name} : {kind}, default {parameter.default!r}\n    {text}\n"
    doc = inspect.cleandoc(doc)
    later = _LATER.search(doc)
    place = later.start() if later else len(doc)
    return f"{doc[:place].rstrip()}\n\n{section}\n{doc[place:]}".rstrip() + "\n"
