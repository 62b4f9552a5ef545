"""The steps of a job: what each table runs, reads and writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from embedpipe._utils.option_names import job_file
from embedpipe.cleaning.clean import clean
from embedpipe.clustering.clusters import clusters
from embedpipe.embedding import FailureLimit, embed, import_vectors
from embedpipe.errors import ExitCode, UsageError, suggest
from embedpipe.evaluation.comparison.evaluate import evaluate
from embedpipe.evaluation.paper_table import SUFFIXES
from embedpipe.evaluation.protocols.registry import find_protocol
from embedpipe.evaluation.saving import check_results
from embedpipe.heads.fit import fit
from embedpipe.heads.registry import NAMES
from embedpipe.heads.saving import MANIFEST, check_target
from embedpipe.jobs.job_file import Table
from embedpipe.jobs.tables import MAKE_STORES
from embedpipe.report.page import check_page
from embedpipe.report.tables import check_table, is_page, write_table
from embedpipe.sources.file_types import suffix_of
from embedpipe.sources.vectors.vector_source import SUFFIXES as VECTOR_SUFFIXES


@dataclass(frozen=True)
class Step(ABC):
    """One table of a job.

    Attributes
    ----------
    table : Table
    stores : sequence of str
        The stores that it reads.
    """

    table: Table
    stores: Sequence[str] = ()

    @property
    def to(self) -> str:
        """What it writes."""
        return str(self.table.values["to"])

    @property
    def result_file(self) -> Path | None:
        """The file by which the result is known; None for a step that does nothing twice by itself."""
        return None

    @property
    def read_files(self) -> list[str]:
        """Other files that decide the result."""
        return []

    @property
    def written_files(self) -> list[str]:
        """Other files that are written."""
        return []

    @abstractmethod
    def check(self) -> None:
        """Refuse names before anything runs. Raises UsageError."""

    @abstractmethod
    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Run the verb. Return what it returns, and its exit code."""

    def options(self) -> dict[str, Any]:
        """Return all options of the table with their defaults."""
        return {name: value for each in self.table.options for name, value in asdict(each).items()}

    def _rest(self) -> dict[str, Any]:
        """Return the options that the verb shares with the command line and Python."""
        names = {field.name for field in fields(self.table.options[0])}
        return {name: value for name, value in self.table.values.items() if name not in names}


class EmbedStep(Step):
    """The table ``[embed]``."""

    def check(self) -> None:
        """Refuse a limit of failures that is none."""
        self._limit()

    def _limit(self) -> FailureLimit | None:
        limit = self.table.options[0].max_failed
        return None if limit is None else FailureLimit.parse(str(limit))

    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Embed what is new or changed."""
        store = embed(self.table.options[0].source, self.to, progress=progress, **self._rest())
        return store, store.summary.exit_code(self._limit())


class ImportStep(Step):
    """The table ``[import-vectors]``."""

    def check(self) -> None:
        """Refuse a file of another type."""
        vectors = self.table.options[0].vectors
        if suffix_of(vectors) not in VECTOR_SUFFIXES:
            raise UsageError(f"vectors must be a file with a suffix in {', '.join(VECTOR_SUFFIXES)}, got {vectors!r}")

    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Import what is new or changed."""
        own = self.table.options[0]
        store = import_vectors(own.vectors, self.to, ids=own.ids, labels=own.labels, progress=progress, **self._rest())
        return store, ExitCode.DONE


class CleanStep(Step):
    """The table ``[clean]``."""

    @property
    def result_file(self) -> Path:
        """The page or table of findings."""
        return Path(self.to)

    @property
    def written_files(self) -> list[str]:
        """The list of rows to keep."""
        return _given(self.table.options[0].keep)

    def check(self) -> None:
        """Refuse names of files that cannot be written."""
        is_page(self.to)
        for path in self.written_files:
            check_table(path)

    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Look through the store, and write what is found."""
        findings = clean(self.stores[0], against=self.table.options[0].against, progress=progress, **self._rest())
        findings.save(self.to)
        for path in self.written_files:
            write_table(findings.keep(), path)
        return findings, ExitCode.DONE


class ClustersStep(Step):
    """The table ``[clusters]``."""

    @property
    def result_file(self) -> Path:
        """The table of rows and clusters."""
        return Path(self.to)

    @property
    def written_files(self) -> list[str]:
        """The page."""
        return _given(self.table.options[0].page)

    def check(self) -> None:
        """Refuse names of files that cannot be written."""
        check_table(self.to)
        for path in self.written_files:
            check_page(path)

    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Group the rows, and write the clusters."""
        groups = clusters(self.stores[0], progress=progress, **self._rest())
        for path in self.written_files:
            groups.to_html(path)
        groups.save(self.to)
        return groups, ExitCode.DONE


class FitStep(Step):
    """The table ``[fit]``."""

    @property
    def result_file(self) -> Path:
        """The manifest of the head, which has the checksums of its other files."""
        return Path(self.to) / MANIFEST

    @property
    def written_files(self) -> list[str]:
        """The page or table of mistakes."""
        return _given(self.table.options[0].mistakes)

    def check(self) -> None:
        """Refuse an unknown head and names of files that cannot be written."""
        check_target(self.to)
        _check_heads(_given(self.table.options[0].head))
        for path in self.written_files:
            is_page(path)

    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Fit the head, and save it."""
        own = self.table.options[0]
        head = fit(self.stores[0], own.head, to=self.to, progress=progress, **self._rest())
        for path in self.written_files:
            head.mistakes().save(path)
        return head, ExitCode.DONE


class EvaluateStep(Step):
    """The table ``[evaluate]``."""

    @property
    def result_file(self) -> Path:
        """The file of the results."""
        return Path(self.to)

    @property
    def read_files(self) -> list[str]:
        """The file of splits."""
        return _given(self.table.options[0].splits)

    @property
    def written_files(self) -> list[str]:
        """The page and the table."""
        return _given(self.table.options[0].page, self.table.options[0].table)

    def check(self) -> None:
        """Refuse unknown heads and names of files that cannot be written."""
        own = self.table.options[0]
        check_results(self.to)
        _check_heads(own.heads)
        if own.protocol is not None:
            find_protocol(own.protocol)
        if own.page is not None:
            check_page(own.page)
        if own.table is not None:
            check_table(own.table, SUFFIXES)

    def run(self, progress: bool | None) -> tuple[Any, ExitCode]:
        """Compare the heads, and write the results."""
        own = self.table.options[0]
        chosen: dict[str, Any] = {"heads": own.heads, "splits": own.splits, "protocol": own.protocol}
        result = evaluate(list(self.stores), progress=progress, **chosen, **self._rest())
        if own.page is not None:
            result.to_html(own.page)
        if own.table is not None:
            result.to_table(own.table)
        result.save(self.to)
        return result, ExitCode.PARTLY_FAILED if getattr(result, "failed", None) else ExitCode.DONE


def make_steps(tables: Sequence[Table]) -> list[Step]:
    """Return the steps of a job, all names checked.

    Raises
    ------
    UsageError
        If a table has no store, two write the same files, or a name is wrong. The message names file and table.
    """
    made = list(dict.fromkeys(table.values["to"] for table in tables if table.verb in MAKE_STORES))
    steps: list[Step] = []
    written: dict[str, str] = {}
    for table in tables:
        try:
            steps.append(_make_step(table, made))
            with job_file():
                steps[-1].check()
            for path in [steps[-1].to, *steps[-1].written_files] if table.verb not in MAKE_STORES else []:
                if path in written:
                    raise UsageError(f"{path!r} is written by {written[path]} too: give another name")
                written[path] = table.place
        except UsageError as error:
            raise UsageError(f"{table.place}: {error}") from error
    return steps


def _make_step(table: Table, made: Sequence[str]) -> Step:
    if table.verb in MAKE_STORES:
        return EmbedStep(table) if table.verb == "embed" else ImportStep(table)
    own = table.options[0]
    if table.verb == "evaluate":
        return EvaluateStep(table, own.stores or (_only(made, "stores"),))
    if table.verb == "clean":
        return CleanStep(table, (own.store or _only(made, "store"), *_given(own.against)))
    step = ClustersStep if table.verb == "clusters" else FitStep
    return step(table, (own.store or _only(made, "store"),))


def _only(made: Sequence[str], name: str) -> str:
    if len(made) != 1:
        tables = " or ".join(f"[{verb}]" for verb in MAKE_STORES)
        reason = f"there is no table {tables}" if not made else f"the job writes the stores {', '.join(made)}"
        raise UsageError(f"{name} is missing, and {reason}")
    return made[0]


def _check_heads(heads: Sequence[str]) -> None:
    for head in heads:
        if head not in NAMES:
            raise UsageError(f"unknown head {head!r}{suggest(head, NAMES)}")


def _given(*paths: str | None) -> list[str]:
    return [path for path in paths if path is not None]
