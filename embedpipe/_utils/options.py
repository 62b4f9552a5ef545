"""Option dataclasses: the one home of every default and help text, shown in the signatures of the verbs."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

import numpy as np

from embedpipe._utils.option_names import in_job_file, option
from embedpipe.errors import UsageError, suggest

#: The precisions in which a network can run.
Precision = Literal["fp32", "fp16", "bf16", "int8"]
#: How many seeds there are. NumPy's older generators take those from 0; what is derived from a seed is taken modulo it.
SEEDS = 2**32

F = TypeVar("F", bound=Callable[..., Any])

#: The numpydoc sections that follow "Other Parameters".
_LATER = re.compile(r"^(Raises|Warns|See Also|Notes|References|Examples)\n-+$", re.MULTILINE)


def build_options(classes: tuple[type, ...], values: Mapping[str, Any]) -> tuple[Any, ...]:
    """Make option dataclasses from keyword arguments; each takes the arguments that it has fields for.

    Raises UsageError, with the most similar name, for an argument that is a field of none, and for a value of another
    type than the field's.
    """
    known = {field.name for cls in classes for field in dataclasses.fields(cls)}
    for name in values:
        if name not in known:
            raise UsageError(f"unknown option {name!r}{suggest(name, sorted(known))}")
    return tuple(
        cls(**{f.name: _typed(f.name, values[f.name], type_) for f, type_ in typed_fields(cls) if f.name in values})
        for cls in classes
    )


def split_names(name: str, given: Iterable[str]) -> tuple[str, ...]:
    """Return the names in the values of an option, each of which may be several, separated by commas.

    Raises UsageError if it was given without a name, as by a variable of a script that is empty: none is the default,
    and something else than what was meant.
    """
    texts = tuple(given)
    names = tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
    if texts and not names:
        raise UsageError(
            f"{option(name)} must have at least one name, got {','.join(texts)!r}: name one, or leave it out"
        )
    return names


def typed_fields(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Return the fields of an option dataclass, each with its type."""
    types_ = typing.get_type_hints(cls)
    return [(field, types_[field.name]) for field in dataclasses.fields(cls)]


def takes_options(*classes: type) -> Callable[[F], F]:
    """Show the fields of option dataclasses as keyword-only parameters of a function that takes ``**options``.

    ``inspect.signature``, ``help`` and completion then show each field with its type and default, and the docstring
    lists it under "Other Parameters" with its help text. Type checkers read the same from `parameters.pyi`.
    """

    def decorate(function: F) -> F:
        declared = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        options: dict[str, tuple[inspect.Parameter, str]] = {}
        for cls in classes:
            for field, type_ in typed_fields(cls):
                if field.name not in options and all(field.name != parameter.name for parameter in declared):
                    options[field.name] = _parameter(field, type_), field.metadata["help"]
        shown = [parameter for parameter, _ in options.values()]
        function.__signature__ = inspect.signature(function).replace(parameters=[*declared, *shown])  # type: ignore[attr-defined]
        function.__option_classes__ = classes  # type: ignore[attr-defined]
        function.__doc__ = _documented(function.__doc__ or "", list(options.values()))
        return function

    return decorate


#: Types of options in the words of messages; a tuple is a list of texts or numbers.
_TYPE_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "text",
    type(None): "None",
    tuple[str, ...]: "a text or a list of texts",
    tuple[int, ...]: "an integer or a list of integers",
}


def _typed(name: str, value: Any, type_: Any) -> Any:
    """Return the value of an option in the type of its field; raises UsageError where it has another type.

    Numbers of NumPy count as numbers, a path counts as text, and one text as a list of one. The option dataclass checks
    ranges and words.
    """
    parts = typing.get_args(type_) if typing.get_origin(type_) in (typing.Union, types.UnionType) else (type_,)
    for part in parts:
        if part is type(None):
            if value is None:
                return None
        elif typing.get_origin(part) is tuple:
            if isinstance(value, str):
                return (value,)
            item = typing.get_args(part)[0]
            if isinstance(value, list | tuple | range | set | frozenset):
                if item is not str or all(isinstance(each, str) for each in value):
                    return tuple(value)
            elif item is int and _is_number(value, int):
                return (value,)
        elif part in (int, float):
            if _is_number(value, part):
                return check_seed(value) if name == "seed" else part(value)
        elif part is bool:
            if isinstance(value, bool | np.bool_):
                return bool(value)
        elif isinstance(value, str) or (part is str and _names_something(value)):
            return value
    words_of = _TYPE_WORDS | ({bool: "true or false", type(None): ""} if in_job_file() else {})  # TOML has no None
    kinds = [word for part in parts if (word := words_of.get(part))]
    words = [repr(word) for part in parts if typing.get_origin(part) is Literal for word in typing.get_args(part)]
    raise UsageError(f"{option(name)} must be {' or '.join([*words, *kinds])}, got {value!r}")


def check_seed(value: Any) -> int:
    """Return a seed below `SEEDS`. Raises UsageError for anything else."""
    if not _is_number(value, int):
        raise UsageError(f"{option('seed')} must be {_TYPE_WORDS[int]}, got {value!r}")
    if not 0 <= value < SEEDS:
        raise UsageError(f"{option('seed')} must be {'>= 0' if value < 0 else '< 2^32'}, got {value}")
    return int(value)


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)


def _names_something(value: Any) -> bool:
    """Return whether a value is a path, or a device of torch, which stand for their text."""
    return isinstance(value, os.PathLike) or (type(value).__module__, type(value).__name__) == ("torch", "device")


def describe_type(type_: Any) -> str:
    """Return the type of an option as source code: ``str | None``, ``Literal["auto", "torch"]``."""
    origin, parts = typing.get_origin(type_), typing.get_args(type_)
    if origin is Literal:
        return "Literal[" + ", ".join(f'"{part}"' for part in parts) + "]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(describe_type(part) for part in parts)
    return "None" if type_ is type(None) else inspect.formatannotation(type_)


def _parameter(field: dataclasses.Field[Any], type_: Any) -> inspect.Parameter:
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
