"""A benchmark's folder: whose run it is, one file for each finished cell, and the states of those under way."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedpipe._utils.atomic import whole_file
from embedpipe.errors import UsageError
from embedpipe.finetuning.benchmark.result import Cell
from embedpipe.finetuning.run_folder import FEATURES
from embedpipe.finetuning.training.epochs import Epoch

RUN, CELLS, PIXELS = "run.json", "cells", "pixels"


@dataclass(frozen=True)
class FinishedCell:
    """A cell as it lies on disk.

    Attributes
    ----------
    cell : Cell
    measuring : float
        Seconds of measuring it on the test rows.
    failed : dict
        Pictures that were left out -> why.
    """

    cell: Cell
    measuring: float
    failed: dict[str, str] = field(default_factory=dict)


class RunFolder:
    """The folder of a run, new or of an earlier one.

    Parameters
    ----------
    to : path

    Raises
    ------
    UsageError
        If something else is there.
    """

    def __init__(self, to: str | Path) -> None:
        if "://" in os.fspath(to):
            raise UsageError(f"{os.fspath(to)!r} is a URL: a benchmark keeps its cells in a local folder")
        self.path = Path(to).resolve()
        ours = any((self.path / name).exists() for name in (RUN, CELLS, FEATURES))
        if any(place.is_file() for place in (self.path, *self.path.parents)) or (
            self.path.is_dir() and any(self.path.iterdir()) and not ours
        ):
            raise UsageError(f"{str(self.path)!r} is there and holds no run of `benchmark`: give a new or empty folder")
        try:
            for folder in (self.path / CELLS, self.path / PIXELS):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {str(self.path)!r}: {error}") from error
        self.facts: dict[str, Any] = {}

    @property
    def features(self) -> Path:
        """Where images that are in no store are embedded."""
        return self.path / FEATURES

    @property
    def pixels(self) -> Path:
        """Where the test pictures lie as the network sees them, until the run is finished."""
        return self.path / PIXELS

    def claim(self, key: str) -> None:
        """Take the folder for a run, and read what it knows. Raises UsageError if it is another one's."""
        if (self.path / RUN).exists():
            self.facts = _read(self.path / RUN)
            if self.facts.get("key") != key:
                raise UsageError(
                    f"{str(self.path)!r} holds a benchmark of other data or options, or of another version of "
                    "embedpipe: name another folder (--to), or delete it"
                )
        self.note(key=key)

    def note(self, **facts: Any) -> None:
        """Keep what a later run of the same is to know."""
        self.facts |= facts
        _write(self.facts, self.path / RUN)

    def state(self, learner: str, labels: int, seed: int) -> Path:
        """Return where a cell under way keeps its state."""
        return self.path / CELLS / f"{learner}-{labels}-{seed}.pt"

    def read(self, learner: str, labels: int, seed: int) -> FinishedCell | None:
        """Return a finished cell, or None. Raises UsageError if its file is damaged."""
        path = self.state(learner, labels, seed).with_suffix(".json")
        if not path.exists():
            return None
        try:
            found = _read(path)
            if found["key"] != self.facts["key"]:
                raise UsageError(
                    f"{str(path)!r} is a cell of other data or options: delete it, or name another folder (--to)"
                )
            cell = found["cell"]
            epochs = [Epoch(**epoch) for epoch in cell.pop("epochs")]
            made = Cell(epochs=epochs, **cell)
            if (made.learner, made.labels, made.seed) != (learner, labels, seed) or not 0 <= made.accuracy <= 1:
                raise ValueError("it is another cell")
            bytes.fromhex(made.correct)
            return FinishedCell(made, found["measuring"], found["failed"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{str(path)!r} is damaged: delete it, and the cell is trained again") from error

    def write(self, found: FinishedCell) -> None:
        """Keep a finished cell, and drop its state."""
        cell = found.cell
        state = self.state(cell.learner, cell.labels, cell.seed)
        _write({"key": self.facts["key"], **asdict(found)}, state.with_suffix(".json"))
        state.unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete what is of no use to a finished run."""
        for path in (*self.pixels.iterdir(), *(self.path / CELLS).glob(".*.part")):
            path.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found}
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"{str(path)!r} is damaged: delete it, and what it held is made again") from error


def _write(values: dict[str, Any], path: Path) -> None:
    with whole_file(path) as part, part.open("w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
