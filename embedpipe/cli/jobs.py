"""The verb `run`: a job as a file."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.main import get_command

from embedpipe._utils.messages.events import current_log, log_event
from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress
from embedpipe.cli.running.environment import options_from_environment
from embedpipe.cli.running.plain_text import escaped
from embedpipe.errors import UsageError

if TYPE_CHECKING:
    from embedpipe.jobs import StepResult
    from embedpipe.jobs.job_file import Outside


@app.command(rich_help_panel="Jobs")
@exits_cleanly
def run(
    job: Annotated[
        Path,
        typer.Argument(metavar="JOB", help="A TOML file with tables such as embed, clean, fit and evaluate."),
    ],
    *,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="TABLE.OPTION=VALUE",
            help="Set an option of a table, in the place of what the file says (repeatable).",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and list what it runs, and do nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Run a job as a TOML file says: embed, clean, fit heads, evaluate. What was done before is not done again.

    The exit code is the worst one of the steps. Options that the file leaves out may be set in the environment.

    Examples: `embedpipe run job.toml`, `embedpipe run job.toml --set embed.batch_size=64`
    """
    from embedpipe.jobs.result import JobResult
    from embedpipe.jobs.running import read_steps, run_steps

    steps = read_steps(job, _outside(given or []))
    result = JobResult(str(job))
    if dry_run:
        if as_json:
            show.json_value({"job": str(job), "steps": [{"verb": step.table.verb, "to": step.to} for step in steps]})
        elif not quiet:
            print(*(f"{step.table.verb} {escaped(step.to)}" for step in steps), sep="\n")
        return result.exit_code
    for each in run_steps(steps, shows_progress(quiet, as_json)):
        result.steps.append(each)
        if not quiet and not as_json:
            print(f"{each.verb} {escaped(each.to)}: {escaped(each.skipped or each.status)}")
            _show(each, verbose)
        log_event("job_step", **{**each.to_dict(), "result": None})
        if each.error is not None and not current_log():
            print(f"embedpipe: {each.verb} {each.to}: {each.error}", file=sys.stderr)
        if each.verb == "embed" and each.value is not None:
            show.new_failures(each.value.summary)
    if as_json:
        show.json_value(result.to_dict())
    return result.exit_code


def _outside(given: list[str]) -> Outside:
    """Return the options of tables that the command line and the environment set."""
    from embedpipe.jobs.job_file import Outside
    from embedpipe.jobs.tables import TABLES

    settings: dict[str, dict[str, Any]] = {}
    for text in given:
        place, _, value = text.partition("=")
        verb, _, name = place.strip().partition(".")
        if verb not in TABLES or not name or "=" not in text:
            raise UsageError(
                f"--set must be TABLE.OPTION=VALUE with a table of {', '.join(TABLES)}, such as embed.batch_size=64, "
                f"got {text!r}"
            )
        settings.setdefault(verb, {})[name] = _toml_value(value.strip())
    environment: dict[str, dict[str, Any]] = {}
    variables: dict[str, str] = {}
    verbs = get_command(app)
    for verb in TABLES:
        environment[verb], used = options_from_environment(verbs, verb)
        variables |= used
    return Outside(settings, environment, variables)


def _toml_value(text: str) -> Any:
    """Return a value as TOML has it; what is no value of TOML is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _show(step: StepResult, verbose: bool) -> None:
    """Print what the verb of a step prints."""
    from embedpipe.cli.cleaning.cleaning import print_findings
    from embedpipe.cli.cleaning.clustering import print_clusters
    from embedpipe.cli.evaluating import print_result
    from embedpipe.cli.storing.importing import print_import

    if step.value is None:
        return
    if step.verb == "embed":
        show.summary(step.value.summary, verbose)
    elif step.verb == "import-vectors":
        print_import(step.value)
    elif step.verb == "clean":
        print_findings(step.value, verbose)
    elif step.verb == "clusters":
        print_clusters(step.value, verbose)
    elif step.verb == "fit":
        show.fit_report(step.value, Path(step.to), verbose)
    else:
        print_result(step.value, verbose)
    print()
