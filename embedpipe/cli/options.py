"""Command-line options made from the option dataclasses, so that each default and help text has one home."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
import typing
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.errors import EmbedpipeError
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.training.launcher import is_first_process
from embedpipe.sources.options import SourceOptions

INTERRUPTED = 130
#: Under which heading the help lists the options of a class; those of others stand with the verb's own.
PANELS: dict[type, str] = {
    SourceOptions: "Source",
    BackboneOptions: "Backbone",
    ReloadOptions: "Backbone's weights",
    ComputeOptions: "Device and speed",
    RunOptions: "Run",
    SplitOptions: "Splits",
    FineTuneOptions: "Training",
    BenchmarkOptions: "Budgets, seeds and corruptions",
    AdviseOptions: "Verdict and pilot",
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more; show the traceback of an error.")]


def with_options(*classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the fields of option dataclasses as options.

    The command takes them as ``**options``, with the names and values that `embedpipe.embed` takes.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        given = {p.name for p in own}
        made = [_parameter(cls, f) for cls in classes for f in dataclasses.fields(cls) if f.name not in given]

        @wraps(command)
        def wrapper(**values: Any) -> Any:
            return command(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

        parameters = sorted([*own, *made], key=lambda p: p.kind)
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _parameter(cls: type, field: dataclasses.Field[Any]) -> inspect.Parameter:
    type_ = typing.get_type_hints(cls)[field.name]
    default = field.default
    words = [word for part in typing.get_args(type_) for word in typing.get_args(part)]
    parser = metavar = None
    if typing.get_origin(type_) is tuple:
        type_, default = list[str], list(default) if isinstance(default, tuple) else []
    elif float in typing.get_args(type_) and words:
        type_, parser, metavar = str, _number_or_word, "|".join(["NUMBER", *words])
    name, told = "--" + field.name.replace("_", "-"), field.metadata["help"]
    panel = PANELS.get(cls)
    option = typer.Option(name, help=told, rich_help_panel=panel, parser=parser, metavar=metavar)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, option]
    )


def _number_or_word(text: Any) -> Any:
    """Return a float, or the text as it is: the option dataclass checks which words are allowed."""
    try:
        return float(text)
    except ValueError:
        return text


def exits_cleanly(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn what a command returns or raises into an exit code and, for errors, one message."""

    @wraps(command)
    def wrapper(**values: Any) -> None:
        try:
            code = command(**values)
        except EmbedpipeError as error:
            if command.__name__ == "finetune" and not is_first_process():  # the first of several says it
                raise typer.Exit(error.exit_code) from error
            if values.get("verbose"):
                traceback.print_exc()
            print(f"embedpipe: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if values.get("verbose"):
                traceback.print_exc()
            print(f"embedpipe: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            goes_on = command.__name__ in ("embed", "finetune", "benchmark", "advise")
            kept = "what was done is committed: run the same command to go on" if goes_on else "no result"
            print(f"embedpipe: interrupted; {kept}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error
        raise typer.Exit(code or 0)

    return wrapper
