"""`Splits`: the training and test rows of every resample, their hash, and their Parquet file.

Each `Resample` trains on ``train``, chooses parameters on ``tune`` inside it, and measures on ``test``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedpipe._utils.atomic import whole_file
from embedpipe._utils.machine.regular_files import read_regular
from embedpipe._utils.messages.json_values import parse_json
from embedpipe._utils.notebook.html_tables import html_table
from embedpipe._utils.version import __version__, other_format
from embedpipe.errors import UsageError
from embedpipe.splits.inner import Split

Rows = npt.NDArray[np.int64]

VERSION = 1
KEY = b"embedpipe.splits"
#: What the numbers of `Splits._assignments` stand for.
NAMES = (None, "train", "test")


@dataclass(frozen=True, eq=False)
class Resample:
    """One division of rows into training and test rows.

    Parameters
    ----------
    seed, fold : int
    train, test : int64 array
        Positions in the ids, ascending.
    tune : list of (train rows, held-out rows), optional
        Splits to choose parameters on, as ascending positions in ``train``. None: the estimator makes its own.
    """

    seed: int
    fold: int
    train: Rows
    test: Rows
    tune: list[Split] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """The resamples on which models are trained and measured. `make_splits` makes them.

    Parameters
    ----------
    ids : list of str
        All rows, also those that no resample uses.
    resamples : list of Resample
    description : str
        Such as ``5 x 5-fold stratified cross-validation, near-duplicates together``.
    groups : int64 array (n_samples,), optional
        The group of each row; a group is never in both the training and the test rows of a resample. None: each row
        is a group of its own.
    notes : list of str
        What a reader of the results should know.
    left_out : dict of str to int64 array
        Reason -> positions of rows that no resample uses.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe.splits import Resample, Splits
    >>> half = Resample(seed=0, fold=0, train=np.array([0, 1]), test=np.array([2, 3]))
    >>> splits = Splits(["a", "b", "c", "d"], [half], "test split")
    >>> splits
    Splits(4 rows, 1 resample: test split)
    >>> splits.identity[:8]
    'ea873d44'
    """

    ids: list[str]
    resamples: list[Resample]
    description: str
    groups: Rows | None = None
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, Rows] = field(default_factory=dict)

    def __repr__(self) -> str:
        count = len(self.resamples)
        return f"Splits({len(self.ids):,} rows, {count} resample{'s' * (count != 1)}: {self.description})"

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {"rows": f"{len(self.ids):,}", "resamples": len(self.resamples)}
        if self.groups is not None:
            rows["groups"] = f"{len(np.unique(self.groups)):,}"
        rows["description"] = self.description
        rows |= {f"left out {reason}": f"{len(positions):,}" for reason, positions in self.left_out.items()}
        rows["notes"] = "; ".join(self.notes) or "none"
        return html_table("Splits", {**rows, "identity": self.identity[:16]})

    @property
    def identity(self) -> str:
        """SHA-256 of the ids and their assignments, in hexadecimal; it does not depend on the order of the rows."""
        assignments = self._assignments()
        used = np.any([numbers > 0 for numbers in assignments.values()], axis=0)
        order = sorted(np.flatnonzero(used).tolist(), key=self.ids.__getitem__)
        digest = hashlib.sha256(json.dumps([[self.ids[row] for row in order], list(assignments)]).encode())
        for numbers in assignments.values():
            digest.update(numbers[order].tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a Parquet table: columns ``id``, ``group``, ``left_out``, and one of train and test for each resample.

        Parameters
        ----------
        path : str or Path
            Ends in ``.parquet``. A file that is there is replaced.

        Raises
        ------
        UsageError
            If the path does not end in ``.parquet``.
        WriteError
            If it cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".parquet":
            raise UsageError(f"splits are saved as Parquet: the path must end in .parquet, got {str(path)!r}")
        about = {
            "version": VERSION,
            "embedpipe": __version__,
            "identity": self.identity,
            "description": self.description,
            "notes": self.notes,
            "resamples": [
                [each.seed, each.fold, None if each.tune is None else len(each.tune)] for each in self.resamples
            ],
        }
        reasons = np.full(len(self.ids), None, object)
        for reason, rows in self.left_out.items():
            reasons[rows] = reason
        names = pa.array(NAMES, pa.string())
        table = pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "group": pa.array(self.groups) if self.groups is not None else pa.nulls(len(self.ids), pa.int64()),
                "left_out": pa.array(reasons, pa.string()),
                **{name: names.take(pa.array(numbers)) for name, numbers in self._assignments().items()},
            }
        ).replace_schema_metadata({KEY: json.dumps(about)})
        with whole_file(path) as part:
            pq.write_table(table, part, compression="zstd")

    def for_ids(self, ids: Sequence[str]) -> Splits:
        """Return the same splits for other ids, such as those of another store of the same items.

        Parameters
        ----------
        ids : sequence of str
            In any order. Ids that are not in these splits are left out.

        Raises
        ------
        UsageError
            If an id that a resample uses is missing, or ids are not unique.
        """
        place = {id: row for row, id in enumerate(ids)}
        if len(place) < len(ids):
            raise UsageError(f"ids must be unique: {len(ids) - len(place)} of {len(ids)} are duplicates")
        at = np.array([place.get(id, -1) for id in self.ids], np.int64)
        needed = np.any([numbers > 0 for numbers in self._assignments().values()], axis=0)
        if lost := [self.ids[row] for row in np.flatnonzero(needed & (at < 0))]:
            named = ", ".join(repr(id) for id in lost[:3])
            raise UsageError(
                f"{len(lost)} of the {int(needed.sum())} ids of these splits are missing, such as {named}: "
                "embed and label those items, or make new splits"
            )
        groups = None
        if self.groups is not None:
            groups = self.groups.max(initial=-1) + 1 + np.arange(len(ids))
            groups[at[at >= 0]] = self.groups[at >= 0]
        left_out = {reason: np.sort(at[rows][at[rows] >= 0]) for reason, rows in self.left_out.items()}
        known = {*self.ids}
        if unknown := [row for row, id in enumerate(ids) if id not in known]:
            left_out["that are not in the saved splits"] = np.array(unknown, np.int64)
        resamples = [_at_positions(each, at) for each in self.resamples]
        return Splits(list(ids), resamples, self.description, groups, self.notes, left_out)

    def _assignments(self) -> dict[str, npt.NDArray[np.int8]]:
        """Return, for each resample and each of its inner splits, the position in `NAMES` for each row."""
        assignments: dict[str, npt.NDArray[np.int8]] = {}
        for each in self.resamples:
            name = f"seed {each.seed} fold {each.fold}"
            assignments[name] = _assignment(len(self.ids), each.train, each.test)
            for number, (train, held_out) in enumerate(each.tune or ()):
                column = f"{name} tune {number}"
                assignments[column] = _assignment(len(self.ids), each.train[train], each.train[held_out])
        return assignments


def load_splits(path: str | Path) -> Splits:
    """Read the file that `Splits.save` wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Splits

    Raises
    ------
    UsageError
        If the file is missing, holds no splits, is of another format version, or was changed.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from embedpipe import load_splits, make_splits
    >>> splits = make_splits(["a", "b", "c", "d"], np.arange(4.0), task="regression", folds=2, repeats=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     splits.save(f"{folder}/splits.parquet")
    ...     load_splits(f"{folder}/splits.parquet")
    Splits(4 rows, 2 resamples: 2-fold cross-validation)
    """
    try:
        table = pq.read_table(pa.BufferReader(read_regular(Path(path))))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise UsageError(f"cannot read splits from {str(path)!r}: {error}") from error
    try:
        about: dict[str, Any] = parse_json((table.schema.metadata or {})[KEY])
        version = about["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{str(path)!r} holds no splits: give a file that Splits.save wrote") from error
    if version != VERSION:
        raise UsageError(
            f"{str(path)!r} {other_format(version, VERSION, about.get('embedpipe'))}. Or make the splits again"
        )
    try:
        splits = _read(table, about)
        intact = splits.identity == about["identity"] and len({*splits.ids}) == len(splits.ids)
    except (KeyError, IndexError, TypeError, ValueError, pa.ArrowException):
        intact = False
    if not intact:
        raise UsageError(f"{str(path)!r} was damaged or changed after it was saved: make the splits again")
    return splits


def _read(table: pa.Table, about: dict[str, Any]) -> Splits:
    resamples = []
    for seed, fold, inner in about["resamples"]:
        name = f"seed {seed} fold {fold}"
        train, test = _rows_of(table, name)
        parts = [_rows_of(table, f"{name} tune {number}") for number in range(inner or 0)]
        tune = [(np.searchsorted(train, rows), np.searchsorted(train, held_out)) for rows, held_out in parts]
        resamples.append(Resample(seed, fold, train, test, None if inner is None else tune))
    reasons = np.array(table["left_out"].to_pylist(), object)
    return Splits(
        ids=table["id"].to_pylist(),
        resamples=resamples,
        description=about["description"],
        groups=None if table["group"].null_count else table["group"].to_numpy().astype(np.int64),
        notes=list(about["notes"]),
        left_out={reason: np.flatnonzero(reasons == reason) for reason in dict.fromkeys(reasons) if reason is not None},
    )


def _rows_of(table: pa.Table, column: str) -> Split:
    names = np.array(table[column].to_pylist(), object)
    return np.flatnonzero(names == "train"), np.flatnonzero(names == "test")


def _assignment(rows: int, train: Rows, test: Rows) -> npt.NDArray[np.int8]:
    numbers = np.zeros(rows, np.int8)
    numbers[train], numbers[test] = 1, 2
    return numbers


def _at_positions(resample: Resample, at: Rows) -> Resample:
    """Return the resample with row ``i`` moved to ``at[i]``."""
    order = np.argsort(at[resample.train])
    rank = np.argsort(order)
    tune = resample.tune
    moved = None if tune is None else [(np.sort(rank[train]), np.sort(rank[held_out])) for train, held_out in tune]
    return Resample(resample.seed, resample.fold, at[resample.train][order], np.sort(at[resample.test]), moved)
