"""Options from the environment: ``--batch-size`` is also ``EMBEDPIPE_BATCH_SIZE``.

The rule holds for every option of every verb but `NEVER`. The command line goes before the environment, and so does the
file of a job. Functions of Python take nothing from it.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from typing import Any

import typer

from embedpipe.errors import UsageError
from embedpipe.sources.access.roots import VARIABLE

PREFIX = "EMBEDPIPE_"
#: Options that are decided for one run, or whose variable commonly means something else.
NEVER = ("--help", "--trust", "--version", "--set")
#: Variables that are read elsewhere, also in Python; the last one is ``--allow-root``.
READ_ELSEWHERE = ("EMBEDPIPE_CACHE", "EMBEDPIPE_CACHE_GB", VARIABLE)
#: Between the values of an option that may be repeated.
SEPARATOR = ","
#: What Kubernetes sets in every container beside a service that is called embedpipe.
_OF_A_SERVICE = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT\w*|PORT(_\d+_\w+)?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def variable_of(option: Any) -> str | None:
    """Return the environment variable of an option of a verb, if it has one."""
    if option.param_type_name != "option":
        return None
    name = str(max(option.opts, key=len))
    variable = PREFIX + name.removeprefix("--").replace("-", "_").upper()
    if name in NEVER or variable in READ_ELSEWHERE or _ADDRESS.match(os.environ.get(variable, "")):
        return None
    return variable


def add_variable(option: Any) -> None:
    """Let an option of a verb be set by its variable."""
    option.envvar = variable_of(option)
    option.envvar_list_splitter = SEPARATOR


def variables_used(ctx: Any) -> dict[str, str]:
    """Return the options that were set by the environment, each with its variable."""
    return {option.name: option.envvar for option in ctx.command.params if is_from_environment(ctx, option)}


def is_from_environment(ctx: Any, option: Any) -> bool:
    """Return whether the value of an option was taken from the environment."""
    source = ctx.get_parameter_source(option.name)
    return source is not None and source.name == "ENVIRONMENT"


def options_from_environment(verbs: Any, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a verb's options that the environment sets, and their variables.

    Raises UsageError for a wrong value, with its variable.
    """
    top = typer.Context(verbs, info_name="embedpipe")
    verb = verbs.get_command(top, name)
    ctx = typer.Context(verb, info_name=name, parent=top)
    for option in verb.params:
        if option.envvar and option.resolve_envvar_value(ctx) is not None:
            try:
                option.handle_parse_result(ctx, {}, [])
            except typer.BadParameter as error:
                raise UsageError(f"wrong value of {option.envvar}: {error.message}") from error
    variables = variables_used(ctx)
    return {option: ctx.params[option] for option in variables}, variables


def warn_of_unknown_variables(ctx: Any) -> None:
    """Warn of variables that begin as embedpipe's and are those of no option, with the most similar one."""
    options = [option for verb in ctx.parent.command.commands.values() for option in verb.params]
    known = {*READ_ELSEWHERE, *(variable for option in options if (variable := variable_of(option)))}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and not _OF_A_SERVICE.fullmatch(name):
            close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8)
            hint = f"did you mean {close[0]}?" if close else "it has no effect"
            warnings.warn(f"unknown environment variable {name}; {hint}", stacklevel=2)
