"""What came of a job, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from embedpipe.errors import EmbedpipeError, ExitCode
from embedpipe.jobs.tables import MAKE_STORES

#: Exit codes, the worst one last: what a person must mend is worse than what time may mend.
BY_SEVERITY = (ExitCode.DONE, ExitCode.PARTLY_FAILED, ExitCode.TRY_AGAIN, ExitCode.REFUSED, ExitCode.FAILED)


@dataclass(frozen=True, eq=False, repr=False)
class StepResult:
    """What came of one table of a job.

    Attributes
    ----------
    verb, to : str
        The name of the table, such as ``embed``, and what it writes.
    exit_code : ExitCode
        That of the verb.
    value : FeatureStore, Findings, Clusters, Head, Evaluation, ProtocolEvaluation or None
        What the verb returned; None if it did not run, or failed.
    skipped : str
        Why it did not run, such as that it was done before; empty if it ran.
    error : Exception or None
        What ended it.
    seconds : float
    """

    verb: str
    to: str
    exit_code: ExitCode = ExitCode.DONE
    value: Any = None
    skipped: str = ""
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """The exit code in words, or ``skipped``."""
        return "skipped" if self.skipped else self.exit_code.status

    def __repr__(self) -> str:
        reason = self.skipped or (str(self.error) if self.error else "")
        return f"StepResult({self.verb} {self.to}: {self.status}{f', {reason}' if reason else ''})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts; ``result`` is what the verb prints with ``--json``."""
        error = self.error and {"type": type(self.error).__name__, "message": str(self.error)}
        return {
            "verb": self.verb,
            "to": self.to,
            "status": self.status,
            "exit_code": int(self.exit_code),
            "skipped": self.skipped or None,
            "error": error,
            "seconds": round(self.seconds, 3),
            "result": self._result(),
        }

    def _result(self) -> dict[str, Any] | None:
        if self.value is None:
            return None
        if self.verb in MAKE_STORES:
            return dict(self.value.summary.to_dict())
        return dict(self.value.report.to_dict() if self.verb == "fit" else self.value.to_dict())


@dataclass(frozen=True, eq=False, repr=False)
class JobResult:
    """What came of a job: `embedpipe.run_job` returns it.

    Attributes
    ----------
    path : str
        The file of the job.
    steps : list of StepResult
        One for each table, in the order in which they ran.
    """

    path: str
    steps: list[StepResult] = field(default_factory=list)

    @property
    def exit_code(self) -> ExitCode:
        """The worst exit code of the steps."""
        return max((step.exit_code for step in self.steps), key=BY_SEVERITY.index, default=ExitCode.DONE)

    def __repr__(self) -> str:
        return f"JobResult({self.path}: {self.exit_code.status}, steps={self.steps})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings, lists and dicts."""
        return {"job": self.path, "steps": [step.to_dict() for step in self.steps]}


def exit_code_of(error: Exception) -> ExitCode:
    """Return the exit code of an error that ended a step."""
    return ExitCode(error.exit_code) if isinstance(error, EmbedpipeError) else ExitCode.FAILED
