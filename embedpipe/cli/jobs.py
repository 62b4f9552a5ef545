"""The verb `run`: a job as a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedpipe._utils.messages.events import current_log, log_event
from embedpipe.cli import show
from embedpipe.cli.app import app
from embedpipe.cli.options import Json, Quiet, Verbose, exits_cleanly, shows_progress
from embedpipe.cli.running.plain_text import escaped

if TYPE_CHECKING:
    from embedpipe.jobs import StepResult


@app.command(rich_help_panel="Jobs")
@exits_cleanly
def run(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A TOML file with the tables embed, fit and evaluate.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and list what it runs, and do nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> int:
    """Run a job: embed, then fit heads and evaluate, as a TOML file says. What was done before is not done again.

    The exit code is the worst one of the steps.

    Example: `embedpipe run job.toml`
    """
    from embedpipe.jobs.result import JobResult
    from embedpipe.jobs.running import read_steps, run_steps

    steps = read_steps(job)
    result = JobResult(str(job))
    if dry_run:
        if not quiet and not as_json:
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


def _show(step: StepResult, verbose: bool) -> None:
    """Print what the verb of a step prints."""
    from embedpipe.cli.evaluating import print_result

    if step.value is None:
        return
    if step.verb == "embed":
        show.summary(step.value.summary, verbose)
    elif step.verb == "fit":
        show.fit_report(step.value, Path(step.to), verbose)
    else:
        print_result(step.value, verbose)
    print()
