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
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from embedpipe._utils.machine.permissions import closed
from embedpipe._utils.option_names import command_line, set_by
from embedpipe._utils.options import typed_fields
from embedpipe.backbones.options import BackboneOptions, ReloadOptions
from embedpipe.cli.running.environment import variables_used, warn_of_unknown_variables
from embedpipe.cli.running.event_lines import event_lines, log_error
from embedpipe.cli.running.json_object import json_object
from embedpipe.cli.running.plain_text import plain_output
from embedpipe.embedding.importing.options import ImportOptions
from embedpipe.embedding.options import ComputeOptions, RunOptions
from embedpipe.errors import EmbedpipeError, ExitCode
from embedpipe.finetuning.advice.options import AdviseOptions
from embedpipe.finetuning.benchmark.options import BenchmarkOptions
from embedpipe.finetuning.options import FineTuneOptions, SplitOptions
from embedpipe.finetuning.training.launcher import is_first_process
from embedpipe.sources.access.outage import outages_raised
from embedpipe.sources.access.roots import VARIABLE
from embedpipe.sources.options import SourceOptions

#: Exit code of a process whose output nobody reads any more: 128 + SIGPIPE, as of any other command in a pipe.
BROKEN_PIPE = 141
#: Heading in the help for the options of a class. Options of other classes are listed with those of the verb.
PANELS: dict[type, str] = {
    SourceOptions: "Source",
    BackboneOptions: "Backbone",
    ReloadOptions: "Backbone's weights",
    ComputeOptions: "Device and speed",
    RunOptions: "Run",
    ImportOptions: "Vectors",
    SplitOptions: "Splits",
    FineTuneOptions: "Training",
    BenchmarkOptions: "Label counts, seeds and corruptions",
    AdviseOptions: "Forecast",
}

#: Options that most users set, which stand first in the help and not under the heading of their class.
ORDINARY = ("label", "text", "backbone", "weights", "layer", "device", "prune")
#: Options of every verb, which stand after those.
COMMON = ("max_failed", "as_json", "quiet", "verbose")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
MaxFailed = Annotated[
    str | None,
    typer.Option(
        "--max-failed",
        metavar="N|N%",
        help="Exit code 3 only if more items failed, whether new or not. Default: if any failed that had not before.",
    ),
]
Log = Annotated[
    Literal["json"] | None,
    typer.Option("--log", help="json: events as one JSON object a line on standard error, and nothing else there."),
]
Picture = Annotated[Path | None, typer.Option("--picture", metavar="PNG", help="Also draw the result as a PNG file.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Print more details, and the traceback of an error.")]


def shows_progress(quiet: bool, as_json: bool) -> bool | None:
    """Return what `Progress` takes: with ``--json`` and no terminal, nothing is written but errors."""
    return False if quiet else None if as_json else True


def with_options(*classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the fields of option dataclasses to a command as options.

    The command gets them as ``**options``, with the names and values of the Python functions.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        declared = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        names = {p.name for p in declared}
        generated: dict[str, inspect.Parameter] = {}  # of two classes with an option of one name, that of the first
        usual: dict[str, Any] = {}
        for cls in classes:
            for f, type_ in typed_fields(cls):
                if f.name not in names and f.name not in generated:
                    generated[f.name], usual[f.name] = _parameter(cls, f, type_), f.default

        @wraps(command)
        def wrapper(**values: Any) -> Any:
            lists = {k: tuple(v) or usual.get(k, ()) for k, v in values.items() if isinstance(v, list)}
            return command(**values | lists)

        parameters = sorted([*declared, *generated.values()], key=_place)
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _place(parameter: inspect.Parameter) -> tuple[int, int]:
    """Return the place in the help: arguments, the verb's own options, ordinary ones in their order, common ones."""
    if parameter.name in COMMON:
        return parameter.kind, len(ORDINARY) + 1
    return parameter.kind, ORDINARY.index(parameter.name) + 1 if parameter.name in ORDINARY else 0


def reads_stored_places(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``--allow-root`` hold for items that are read from where a store says that they are.

    The option is added to a verb that has none for its source.
    """
    added = "allow_root" not in inspect.signature(command).parameters

    @wraps(command)
    def wrapper(**values: Any) -> Any:
        if given := values.pop("allow_root") if added else values["allow_root"]:
            os.environ[VARIABLE] = ",".join(filter(None, [os.environ.get(VARIABLE, ""), *given]))
        return command(**values)

    option = typer.Option("--allow-root", help="Also read stored items from below this folder or URL.")
    return _with_parameter(wrapper, "allow_root", Annotated[list[str] | None, option]) if added else wrapper


def _with_parameter(command: Callable[..., Any], name: str, annotation: Any) -> Callable[..., Any]:
    """Add an option, by default None, to the signature of a command."""
    signature = inspect.signature(command, eval_str=True)
    added = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    parameters = [*signature.parameters.values(), added]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(cls: type, field: dataclasses.Field[Any], type_: Any) -> inspect.Parameter:
    default = field.default
    words = [word for part in typing.get_args(type_) for word in typing.get_args(part)]
    parser = metavar = None
    if any(typing.get_origin(part) is tuple for part in (type_, *typing.get_args(type_))):
        type_, default = list[str], list(default) if isinstance(default, tuple) else []
    elif float in typing.get_args(type_) and words:
        type_, parser, metavar = str, _number_or_word, "|".join(["NUMBER", *words])
    name = "--" + field.name.replace("_", "-")
    panel = None if field.name in ORDINARY else PANELS.get(cls)
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


def check_picture(picture: Path | None) -> None:
    """Refuse a wrong file name before the work starts."""
    if picture is not None:
        from embedpipe.report.drawing.canvas import check_png

        check_png(picture, "a picture")


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
    """Turn the result or error of a command into an exit code, and an error into one message or JSON object.

    The option ``--log`` is added to it.
    """
    name = command.__name__.strip("_")

    @wraps(command)
    def wrapper(*, ctx: typer.Context, log: str | None = None, **values: Any) -> None:
        events = event_lines(name) if log else contextlib.nullcontext()
        with plain_output(), command_line(), set_by(variables_used(ctx)), events:
            warn_of_unknown_variables(ctx)
            run = _outcome_as_json if values.get("as_json") else _outcome
            code, _ = run(command, values)
            raise typer.Exit(code)

    wrapper.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    return _with_parameter(_with_parameter(wrapper, "log", Log), "ctx", typer.Context)


def _outcome_as_json(command: Callable[..., int | None], values: dict[str, Any]) -> tuple[int, BaseException | None]:
    """Run a command as `_outcome` does, and print its JSON object, also after an error that nothing foresaw."""
    name = command.__name__.strip("_")
    unexpected = None
    with json_object(name) as result:
        try:
            code, error = _outcome(command, values)
        except BrokenPipeError:
            raise
        except Exception as reason:
            code, error, unexpected = ExitCode.FAILED, reason, reason
    if name != "finetune" or is_first_process():
        result.print(code, error)
    if unexpected is not None:
        raise unexpected
    return code, error


@contextlib.contextmanager
def _denials_raised() -> Iterator[None]:
    """Raise an EmbedpipeError that says what must hold in place of a PermissionError of the block."""
    try:
        yield
    except PermissionError as error:
        if not isinstance(error.filename, str):
            raise
        raise EmbedpipeError(closed(error.filename)) from error


def _outcome(command: Callable[..., int | None], values: dict[str, Any]) -> tuple[int, BaseException | None]:
    """Run a command. Return its exit code, and the error that ended it, whose message is printed."""
    try:
        with outages_raised(), _denials_raised():
            return command(**values) or ExitCode.DONE, None
    except KeyboardInterrupt as error:
        resumes = command.__name__ in ("embed", "finetune", "benchmark", "advise", "run")
        kept = "finished work is saved: run the same command to continue" if resumes else "no result"
        if not log_error(error, ExitCode.INTERRUPTED, message=f"interrupted; {kept}"):
            print(f"embedpipe: interrupted; {kept}", file=sys.stderr)
        return ExitCode.INTERRUPTED, error
    except (EmbedpipeError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and reader_is_gone():  # `main` ends without a message
            raise
        code = error.exit_code if isinstance(error, EmbedpipeError) else ExitCode.FAILED
        if command.__name__ == "finetune" and not is_first_process():  # the first process prints it
            return code, error
        memory = isinstance(error, MemoryError)
        message = f"not enough memory{f': {error}' * bool(str(error))}" if memory else str(error)
        trace = traceback.format_exc() if values.get("verbose") else None
        if not log_error(error, code, trace, message):
            print(f"{trace or ''}embedpipe: {message}", file=sys.stderr)
        return code, error
