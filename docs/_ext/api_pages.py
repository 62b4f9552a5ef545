"""The pages of the Python reference: one for the names at the top, one a package, from what each of them exports."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import GenericAlias, ModuleType

from writing import write_if_changed

import embedpipe

#: Packages whose public names are for users and plug-ins; the others serve these.
PACKAGES = (
    "sources",
    "decoding",
    "backbones",
    "embedding",
    "store",
    "neighbours",
    "splits",
    "statistics",
    "estimators",
    "heads",
    "querying",
    "evaluation",
    "finetuning",
    "report",
    "diagnosis",
    "jobs",
    "sharing",
)


def write(folder: Path) -> list[str]:
    """Write the pages and return their names; pages of an earlier build that are not among them are deleted."""
    top = [name for name in embedpipe.__all__ if not name.startswith("__")]
    kinds: dict[str, list[str]] = {"Verbs and loaders": [], "Classes": []}
    for name in sorted(top, key=str.lower):
        kinds["Classes" if inspect.isclass(getattr(embedpipe, name)) else "Verbs and loaders"].append(name)
    parts = ["# embedpipe\n", "Everything here is imported with `import embedpipe`.\n"]
    for kind, names in kinds.items():
        parts += [f"## {kind}\n", _table("embedpipe", names)]
    pages = {"api-embedpipe.md": "\n".join(parts)}
    pages |= {f"api-{package}.md": _package(package, set(top)) for package in PACKAGES}
    for page, text in pages.items():
        write_if_changed(folder / page, text)
    listed = {f"{name}.rst" for text in pages.values() for name in re.findall(r"^   ~(\S+)$", text, re.M)}
    for old in (*folder.glob("api-*.md"), *folder.glob("api/*.rst")):
        if old.name not in pages.keys() | listed:
            old.unlink()
    return list(pages)


def _package(package: str, top: set[str]) -> str:
    module = importlib.import_module(f"embedpipe.{package}")
    names = [name for name in module.__all__ if name not in top]
    also = [name for name in module.__all__ if name in top]
    parts = [f"# embedpipe.{package}\n", _summary(module) + "\n"]
    if also:
        listed = ", ".join(f"`{name}`" for name in also)
        parts.append(f"At the top of the package, and described [there](api-embedpipe.md): {listed}.\n")
    if names:
        parts.append(_table(f"embedpipe.{package}", names))
    return "\n".join(parts)


def _summary(module: ModuleType) -> str:
    """Return the docstring of a package without what it says to its developers."""
    paragraphs = inspect.cleandoc(module.__doc__ or "").split("\n\n")
    return "\n\n".join(paragraph for paragraph in paragraphs if "__init__.pyi" not in paragraph)


def _table(module: str, names: list[str]) -> str:
    """List names: functions and classes with pages of their own, constants and aliases of types by what they are."""
    values = {name: getattr(importlib.import_module(module), name) for name in names}
    own_page = [name for name, value in values.items() if inspect.isfunction(value) or isinstance(value, type)]
    own_page = [name for name in own_page if not isinstance(values[name], GenericAlias)]
    listed = "\n".join(f"   ~{module}.{name}" for name in own_page)
    table = f"```{{eval-rst}}\n.. autosummary::\n   :toctree: api\n   :nosignatures:\n\n{listed}\n```\n"
    others = [f"- `{name}`: {_short(values[name])}" for name in names if name not in own_page]
    return (table if own_page else "") + "\n" + "\n".join(others) + "\n"


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "a dict with the keys " + ", ".join(f"`{key}`" for key in value)
    return f"`{inspect.formatannotation(value)}`"
