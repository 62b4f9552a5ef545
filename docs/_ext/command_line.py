"""The page of the command line: every verb with its arguments and options, from the typer app."""

from __future__ import annotations

import inspect
import types
import typing
from pathlib import Path
from typing import Any

import typer.main
from writing import write_if_changed

from embedpipe.cli import app
from embedpipe.cli.running.verbs import VERB_GROUPS

HEAD = """# Command line

```
embedpipe VERB ARGUMENTS --option VALUE
```

Every verb takes `--help`, `--json` (one JSON object on standard output), `--log json` ([events](../reference/log.md) on
standard error), `-q`/`--quiet` (errors only) and `-v`/`--verbose` (more detail, and the traceback of an error).
`embedpipe --version` prints the version, and `embedpipe --install-completion` lets the shell complete verbs and
options.

Every option may be set [in the environment](../reference/environment.md) too.

A verb has the same name in Python, and what can be set in both has the same name: `--batch-size` is `batch_size`.
[Exit codes](../reference/exit-codes.md) are the same for all verbs.

This page is generated from the program.
"""
#: Said once at the top of the page.
COMMON = {"json", "log", "quiet", "verbose", "help"}


def write(path: Path) -> None:
    """Write the page."""
    group = typer.main.get_command(app)
    parts = [HEAD]
    for panel, names in _panels(group).items():
        parts.append(f"## {panel}\n")
        parts += [_verb(name, group.commands[name]) for name in names]  # type: ignore[attr-defined]
    write_if_changed(path, "\n".join(parts))


def _panels(group: Any) -> dict[str, list[str]]:
    """Return the verbs by the heading under which ``embedpipe --help`` lists them."""
    panels: dict[str, list[str]] = {heading: [] for heading in VERB_GROUPS}
    for name, command in group.commands.items():
        panels[command.rich_help_panel].append(name)
    return panels


def _verb(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not COMMON & set(_stripped(p))]
    usage = " ".join(["embedpipe", name, *(_metavar(argument) for argument in arguments), "[OPTIONS]"])
    parts = [f"### {name}\n", f"```\n{usage}\n```\n", inspect.cleandoc(command.help or ""), ""]
    if arguments:
        parts += ["| argument | |", "|---|---|"]
        parts += [f"| `{_metavar(argument)}` | {_cell(argument.help)} |" for argument in arguments] + [""]
    panels: dict[str, list[Any]] = {}
    for option in options:
        heading = getattr(option, "rich_help_panel", None)
        panels.setdefault(heading if isinstance(heading, str) else "Options", []).append(option)
    for panel, members in panels.items():
        parts += [f"| {panel} | default | |", "|---|---|---|", *(_option(option) for option in members), ""]
    return "\n".join(parts)


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    default = option.default
    shown = "required" if option.required else "" if default in (None, False, [], (), "") else f"`{default}`"
    kind = "" if option.is_flag else f" {_kind(option)}"
    return f"| {names}{kind} | {shown} | {_cell(option.help)} |"


def _kind(option: Any) -> str:
    """Return what an option takes: its choices, or number, path or text."""
    if isinstance(option.metavar, str):
        return option.metavar
    annotation = option.type_descriptor.annotation
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        return " ".join(f"`{part}`" for part in parts)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType) and len(parts) == 1:
        annotation = parts[0]
        if typing.get_origin(annotation) is typing.Literal:
            return " ".join(f"`{part}`" for part in typing.get_args(annotation))
    repeated = ", repeatable" if option.multiple else ""
    return {int: "number", float: "number", Path: "path"}.get(annotation, "text") + repeated


def _metavar(argument: Any) -> str:
    name = argument.metavar if isinstance(argument.metavar, str) else argument.name.upper()
    return name if argument.required else f"[{name}]"


def _stripped(option: Any) -> list[str]:
    return [name.lstrip("-") for name in option.opts]


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", r"\|")
