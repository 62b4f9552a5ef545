"""Write `embedpipe/_utils/parameters.pyi`, from which type checkers know the options of the verbs.

    python tests/parameter_stub.py

The option dataclasses are the home of the options; `tests/test_signatures.py` fails where the stub differs from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import embedpipe
from embedpipe._utils.options import describe_type

STUB = Path(embedpipe.__file__).parent / "_utils" / "parameters.pyi"
VERBS = [name for name in embedpipe.__all__ if hasattr(getattr(embedpipe, name), "__option_classes__")]


def verbs() -> dict[str, Callable[..., Any]]:
    """Return the functions whose options come from dataclasses, by the name of their TypedDict."""
    functions = {name: getattr(embedpipe, name) for name in VERBS} | {"predict": embedpipe.Head.predict}
    return {f"{_camel_case(name)}Parameters": function for name, function in functions.items()}


def render() -> str:
    """Return the text of the stub."""
    text = '"""The options of the verbs, for type checkers; written by tests/parameter_stub.py."""\n\n'
    text += "from typing import Literal, TypedDict\n"
    bases: set[type] = set()
    short = long = ""
    for name, function in sorted(verbs().items()):
        classes = function.__option_classes__  # type: ignore[attr-defined]
        options = [field.name for cls in classes for field in dataclasses.fields(cls)]
        names = _own_names(function) & {*options}
        if names or len({*options}) < len(options):
            # Type checkers refuse a name that is a parameter and an option, or an option of two types.
            long += f"\nclass {name}(TypedDict, total=False):\n"
            for cls in classes:
                long += _fields(cls, names)
                names |= {field.name for field in dataclasses.fields(cls)}
        else:
            short += f"class {name}({', '.join(map(fields_name, classes))}, total=False): ...\n"
            bases.update(classes)
    for cls in sorted(bases, key=lambda cls: cls.__name__):
        text += f"\nclass {fields_name(cls)}(TypedDict, total=False):\n{_fields(cls)}"
    return f"{text}\n{short}{long}"


def fields_name(cls: type) -> str:
    """Return the name of the TypedDict of an option dataclass."""
    return cls.__name__.removesuffix("Options") + "Fields"


def _camel_case(name: str) -> str:
    return "FineTune" if name == "finetune" else "".join(word.title() for word in name.split("_"))


def _fields(cls: type, without: frozenset[str] = frozenset()) -> str:
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.name not in without]
    return "".join(f"    {name}: {describe_type(hints[name])}\n" for name in names)


def _own_names(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that a function declares itself."""
    code = function.__code__
    return frozenset(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


if __name__ == "__main__":
    STUB.write_text(render())
    print(STUB)
