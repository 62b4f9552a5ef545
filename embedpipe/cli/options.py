"""Command-line options generated from the option dataclasses, which hold every default and help text."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import select
import sys
import traceback
import typing
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from embedpipe._utils.options import typed_fields
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.cli.plain_text import plain_output
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.errors import EmbedpipeError
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.training.launcher import is_first_process
from embedpipe.sources.options import SourceOptions

INTERRUPTED = 130
#: Exit code of a process whose output nobody reads any more: 128 + SIGPIPE, as of any other command in a pipe.
BROKEN_PIPE = 141
#: Heading in the help for the options of a class. Options of other classes are listed with those of the verb.
PANELS: dict[type, str] = {
    SourceOptions: "Source",
    BackboneOptions: "Backbone",
    ReloadOptions: "Backbone's weights",
    ComputeOptions: "Device and speed",
    RunOptions: "Run",
    SplitOptions: "Splits",
    FineTuneOptions: "Training",
    BenchmarkOptions: "Label counts, seeds and corruptions",
    AdviseOptions: "Verdict and pilot",
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print more details, and the traceback of an error.")]


def with_options(*classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the fields of option dataclasses to a command as options.

    The command gets them as ``**options``, with the names and values of the Python functions.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        declared = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in declared}
        generated = [
            _parameter(cls, f, type_) for cls in classes for f, type_ in typed_fields(cls) if f.name not in names
        ]

        @wraps(command)
        def wrapper(**values: Any) -> Any:
            return command(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

        parameters = sorted([*declared, *generated], key=lambda p: p.kind)
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _parameter(cls: type, field: dataclasses.Field[Any], type_: Any) -> inspect.Parameter:
    default = field.default
    words = [word for part in typing.get_args(type_) for word in typing.get_args(part)]
    parser = metavar = None
    if typing.get_origin(type_) is tuple:
        type_, default = list[str], list(default) if isinstance(default, tuple) else []
    elif float in typing.get_args(type_) and words:
        type_, parser, metavar = str, _number_or_word, "|".join(["NUMBER", *words])
    name = "--" + field.name.replace("_", "-")
    panel = PANELS.get(cls)
    option = typer.Option(name, help=field.metadata["help"], rich_help_panel=panel, parser=parser, metavar=metavar)
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[type_, option]
    )


def _number_or_word(text: Any) -> Any:
    """Return a float, or the unchanged text. The option dataclass checks which words are allowed."""
    try:
        return float(text)
    except ValueError:
        return text


def reader_is_gone() -> bool:
    """Return whether the reader of the output has ended first, such as `head`; what is buffered is then thrown away."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file has no reader that could end
            if _has_no_reader(stream.fileno()):
                gone = True
                with Path(os.devnull).open("wb") as nothing:
                    os.dup2(nothing.fileno(), stream.fileno())
    return gone


def _has_no_reader(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows, where pipes of a shell do not end early
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def exits_cleanly(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn the result or error of a command into an exit code, and an error into one message."""

    @wraps(command)
    def wrapper(**values: Any) -> None:
        with plain_output():
            run(values)

    def run(values: dict[str, Any]) -> None:
        try:
            code = command(**values)
        except EmbedpipeError as error:
            if command.__name__ == "finetune" and not is_first_process():  # the first process prints it
                raise typer.Exit(error.exit_code) from error
            if values.get("verbose"):
                traceback.print_exc()
            print(f"embedpipe: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) and reader_is_gone():  # `main` ends without a message
                raise
            if values.get("verbose"):
                traceback.print_exc()
            print(f"embedpipe: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except MemoryError as error:
            if values.get("verbose"):
                traceback.print_exc()
            print(f"embedpipe: not enough memory{f': {error}' if str(error) else ''}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            resumes = command.__name__ in ("embed", "finetune", "benchmark", "advise")
            kept = "finished work is saved: run the same command to continue" if resumes else "no result"
            print(f"embedpipe: interrupted; {kept}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error
        raise typer.Exit(code or 0)

    return wrapper
