"""`run_job`: embed or import, then clean, group, fit and evaluate as a job file says, and nothing twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedpipe._utils.option_names import job_file, set_by
from embedpipe.errors import EmbedpipeError, ExitCode
from embedpipe.jobs.done_before import is_done, mark_done, store_versions
from embedpipe.jobs.job_file import Outside, read_job
from embedpipe.jobs.result import JobResult, StepResult, exit_code_of
from embedpipe.jobs.steps import Step, make_steps
from embedpipe.jobs.tables import MAKE_STORES
from embedpipe.sources.access.outage import outages_raised


def run_job(path: str | Path, *, progress: bool | None = None) -> JobResult:
    r"""Run the job of a TOML file.

    The tables ``[embed]``, ``[import-vectors]``, ``[clean]``, ``[clusters]``, ``[fit]`` and ``[evaluate]`` run in this
    order. A table has the options of the Python function of its name, and may be there several times (``[[fit]]``).
    Paths in the file are relative to it. Everything is checked before anything runs. `embed` and `import_vectors` do
    what is new; another step is left out if it was done before, on this version of the store, with these options and
    by this version of embedpipe.

    Parameters
    ----------
    path : str or path-like
        The file.
    progress : bool, optional
        Show progress; by default in a notebook and on a terminal (standard error).

    Returns
    -------
    JobResult
        One result for each table. A step that fails does not end the others, but for those that need its store: look
        at ``exit_code`` of the result, and at ``error`` of its steps.

    Raises
    ------
    UsageError
        If the file is missing or no TOML, or has an unknown table or option, or a wrong value.

    See Also
    --------
    embed : What the table of this name does, and its options.

    Examples
    --------
    >>> from pathlib import Path
    >>> text = '[embed]\nsource = "photos"\nto = "job.features"\n[fit]\nto = "job.head"\nhead = "lda"\n'
    >>> characters = Path("job.toml").write_text(text)
    >>> embedpipe.run_job("job.toml")
    JobResult(job.toml: done, steps=[StepResult(embed job.features: done), StepResult(fit job.head: done)])
    >>> embedpipe.run_job("job.toml").steps[1].status
    'skipped'
    """
    return JobResult(str(path), list(run_steps(read_steps(path), progress)))


def read_steps(path: str | Path, outside: Outside | None = None) -> list[Step]:
    """Return the checked steps of a job file. Raises UsageError."""
    return make_steps(read_job(path, outside))


def run_steps(steps: Sequence[Step], progress: bool | None = None) -> Iterator[StepResult]:
    """Run steps in order, and yield what came of each."""
    incomplete: set[str] = set()
    for step in steps:
        start = time.perf_counter()
        verb, to = step.table.verb, step.to
        if missing := [store for store in step.stores if store in incomplete]:
            yield StepResult(verb, to, skipped=f"{missing[0]} was not written")
            continue
        try:
            with job_file(), set_by(step.table.variables), outages_raised():
                result = _run(step, progress)
        except BrokenPipeError:  # nobody reads the output any more
            raise
        except (EmbedpipeError, OSError, MemoryError) as error:
            result = StepResult(verb, to, exit_code_of(error), error=error, seconds=time.perf_counter() - start)
        if verb in MAKE_STORES and result.exit_code not in (ExitCode.DONE, ExitCode.PARTLY_FAILED):
            incomplete.add(to)
        yield result


def _run(step: Step, progress: bool | None) -> StepResult:
    start = time.perf_counter()
    versions = store_versions(step)
    if is_done(step, versions):
        on = " and ".join(
            f"version {version} of {store}" for store, (_, version) in zip(step.stores, versions, strict=True)
        )
        return StepResult(step.table.verb, step.to, skipped=f"done before, from {on} with these options")
    value, code = step.run(progress)
    if code == ExitCode.DONE:
        mark_done(step, versions)
    return StepResult(step.table.verb, step.to, code, value, seconds=time.perf_counter() - start)
