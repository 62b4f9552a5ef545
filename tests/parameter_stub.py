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
    found = {name: getattr(embedpipe, name) for name in VERBS}
    named = {name.title() if name != "finetune" else "FineTune": function for name, function in found.items()}
    return {f"{name}Parameters": function for name, function in named.items()} | {
        "PredictParameters": embedpipe.Head.predict
    }


def render() -> str:
    """Return the text of the stub."""
    classes = {cls for function in verbs().values() for cls in function.__option_classes__}  # type: ignore[attr-defined]
    text = '"""The options of the verbs, for type checkers; written by tests/parameter_stub.py."""\n\n'
    text += "from typing import Literal, TypedDict\n"
    for cls in sorted(classes, key=lambda cls: cls.__name__):
        text += f"\nclass {fields_name(cls)}(TypedDict, total=False):\n"
        hints = get_type_hints(cls)
        text += "".join(f"    {f.name}: {describe_type(hints[f.name])}\n" for f in dataclasses.fields(cls))
    text += "\n"
    for name, function in sorted(verbs().items()):
        bases = ", ".join(map(fields_name, function.__option_classes__))  # type: ignore[attr-defined]
        text += f"class {name}({bases}, total=False): ...\n"
    return text


def fields_name(cls: type) -> str:
    """Return the name of the TypedDict of an option dataclass."""
    return cls.__name__.removesuffix("Options") + "Fields"


if __name__ == "__main__":
    STUB.write_text(render())
    print(STUB)
