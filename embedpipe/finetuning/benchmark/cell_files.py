"""The folder of a benchmark: one file for the run, one for each finished cell, and states of unfinished cells."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpipe._utils.atomic import check_writable
from embedpipe._utils.checksums import read_json, write_json
from embedpipe._utils.folder_kinds import refuse_url
from embedpipe._utils.option_names import option
from embedpipe._utils.version import __version__, other_format
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.benchmark_data import Cell
from embedpipe.finetuning.run_folder import CLAIM, FEATURES, LOCK
from embedpipe.finetuning.run_settings import require_same
from embedpipe.finetuning.training.epochs import Epoch

#: The version of the format of the folder's files.
FORMAT = 1
RUN, CELLS, PIXELS = "run.json", "cells", "pixels"


@dataclass(frozen=True)
class FinishedCell:
    """A cell as it is stored.

    Attributes
    ----------
    cell : Cell
    measuring : float
        Seconds of measuring it on the test rows.
    failed : dict
        Training image that was left out -> reason.
    """

    cell: Cell
    measuring: float
    failed: dict[str, str] = field(default_factory=dict)


class BenchmarkFolder:
    """The folder of a benchmark, which may hold an earlier run of it.

    Parameters
    ----------
    to : path
    beside : str, optional
        Name of a folder that whoever calls keeps beside the cells, and that may be there before them.

    Raises
    ------
    UsageError
        If the folder holds anything else.
    WriteError
        If it is new and cannot be made.
    """

    def __init__(self, to: str | Path, beside: str = "") -> None:
        refuse_url(to, "a benchmark needs a local folder")
        self.path = Path(to)  # as given, so that messages name it so
        is_run = any((self.path / name).exists() for name in (RUN, CELLS, CLAIM, FEATURES))
        if any(place.is_file() for place in (self.path, *self.path.absolute().parents)) or (
            self.path.is_dir() and any(path.name not in (LOCK, beside) for path in self.path.iterdir()) and not is_run
        ):
            raise UsageError(
                f"the folder must be new, empty or that of an earlier benchmark, and {str(self.path)!r} holds other "
                f"files: give another ({option('to', ...)})"
            )
        check_writable(self.path)
        self.facts: dict[str, Any] = {}

    @property
    def features(self) -> Path:
        """Store of images that were not in a store before."""
        return self.path / FEATURES

    @property
    def pixels(self) -> Path:
        """Folder of the decoded test images, which `clear` empties."""
        return self.path / PIXELS

    def claim(self, settings: dict[str, Any]) -> None:
        """Take the folder for a run, and read its facts. Raises UsageError if it holds a run with other settings."""
        for folder in (self.path / CELLS, self.path / PIXELS):
            folder.mkdir(parents=True, exist_ok=True)
        if (self.path / RUN).exists():
            self.facts = _read(self.path / RUN)
            if (found := self.facts.get("format")) != FORMAT:
                problem = other_format(found, FORMAT, self.facts.get("embedpipe"))
                raise UsageError(f"{str(self.path / RUN)!r} {problem}. Or give another folder ({option('to', ...)})")
            remedy = f"give the same, or another folder ({option('to', ...)}), or delete it"
            require_same(self.facts.get("settings"), settings, f"the benchmark in {str(self.path)!r}", remedy)
        self.note(format=FORMAT, embedpipe=__version__, settings=settings)

    def note(self, **facts: Any) -> None:
        """Save facts for later runs in this folder."""
        self.facts |= facts
        write_json(self.facts, self.path / RUN)

    def state(self, learner: str, labels: int, seed: int) -> Path:
        """Return the file of the training state of an unfinished cell."""
        return self.path / CELLS / f"{learner}-{labels}-{seed}.pt"

    def finished_seeds(self, learners: Sequence[str], first: int) -> dict[int, int]:
        """Return how many seeds, from ``first`` on, all of the learners have finished at each label count."""
        names = {path.stem for path in (self.path / CELLS).glob("*.json")}
        counts = {int(name.rsplit("-", 2)[1]) for name in names if re.fullmatch(r"[a-z-]+-\d+-\d+", name)}
        finished = {}
        for labels in sorted(counts):
            seeds = 0
            while all(f"{learner}-{labels}-{first + seeds}" in names for learner in learners):
                seeds += 1
            finished[labels] = seeds
        return {labels: seeds for labels, seeds in finished.items() if seeds}

    def read(self, learner: str, labels: int, seed: int) -> FinishedCell | None:
        """Return a finished cell, or None. Raises UsageError if its file is damaged."""
        path = self.state(learner, labels, seed).with_suffix(".json")
        if not path.exists():
            return None
        try:
            values = _read(path)
            remedy = f"delete it, or give another folder ({option('to', ...)})"
            require_same(values["settings"], self.facts["settings"], f"the cell {str(path)!r}", remedy)
            fields = values["cell"]
            epochs = [Epoch(**epoch) for epoch in fields.pop("epochs")]
            cell = Cell(epochs=epochs, **fields)
            if (cell.learner, cell.labels, cell.seed) != (learner, labels, seed) or not 0 <= cell.accuracy <= 1:
                raise ValueError("the file holds another cell")
            bytes.fromhex(cell.correct)
            return FinishedCell(cell, values["measuring"], values["failed"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{str(path)!r} is damaged: delete it to train this cell again") from error

    def write(self, finished: FinishedCell) -> None:
        """Save a finished cell, and delete its training state."""
        cell = finished.cell
        state = self.state(cell.learner, cell.labels, cell.seed)
        write_json({"settings": self.facts["settings"], **asdict(finished)}, state.with_suffix(".json"))
        state.unlink(missing_ok=True)
        shutil.rmtree(state.with_suffix(""), ignore_errors=True)  # of the contrastive learner

    def clear(self) -> None:
        """Delete files that a finished run does not need."""
        for path in (*self.pixels.iterdir(), *(self.path / CELLS).glob(".*.part")):
            path.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"{str(path)!r} is damaged: delete it, and its content is made again") from error
