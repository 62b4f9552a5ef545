"""Which rows are trained on and which are measured on, again and again: as arrays, as one number, as a file."""

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
from embedpipe.errors import UsageError
from embedpipe.splits.inner import Split

Rows = npt.NDArray[np.int64]

VERSION = 1
KEY = b"embedpipe.splits"
#: Of the numbers that `Splits._roles` gives.
NAMES = (None, "train", "test")


@dataclass(frozen=True, eq=False)
class Resample:
    """One division of the rows.

    Attributes
    ----------
    seed, fold : int
    train, test : int64 array
        Positions in the ids, going up.
    tune : list of (train, held out), optional
        Where a head is to choose by itself, as positions in ``train``, going up; where it likes to, if None.
    """

    seed: int
    fold: int
    train: Rows
    test: Rows
    tune: list[Split] | None = None


@dataclass(frozen=True, eq=False)
class Splits:
    """All divisions of the rows that an evaluation is made on.

    Attributes
    ----------
    ids : list of str
    resamples : list of Resample
    kind : str
        In words: ``5 x 5-fold stratified cross-validation, near-duplicates together``.
    groups : int64 array (n_samples,), optional
        Rows that were kept together; None where every row stands alone.
    notes : list of str
        What a reader should know.
    left_out : dict
        Why rows are in no resample -> their positions.
    """

    ids: list[str]
    resamples: list[Resample]
    kind: str
    groups: Rows | None = None
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, Rows] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256 over the ids and roles, as hexadecimal digits; it does not depend on the order of the rows."""
        roles = self._roles()
        taking_part = np.any([role > 0 for role in roles.values()], axis=0)
        order = sorted(np.flatnonzero(taking_part).tolist(), key=self.ids.__getitem__)
        digest = hashlib.sha256(json.dumps([[self.ids[row] for row in order], list(roles)]).encode())
        for role in roles.values():
            digest.update(role[order].tobytes())
        return digest.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a Parquet table: ``id``, ``group``, ``left_out``, and a column of ``train`` and ``test`` a resample.

        Raises
        ------
        UsageError
            If the path does not end in ``.parquet``, or cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != ".parquet":
            raise UsageError(f"splits are saved as Parquet: {str(path)!r} must end in .parquet")
        about = {
            "version": VERSION,
            "identity": self.identity,
            "kind": self.kind,
            "notes": self.notes,
            "resamples": [[one.seed, one.fold, None if one.tune is None else len(one.tune)] for one in self.resamples],
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
                **{name: names.take(pa.array(role)) for name, role in self._roles().items()},
            }
        ).replace_schema_metadata({KEY: json.dumps(about)})
        try:
            with whole_file(path) as part:
                pq.write_table(table, part, compression="zstd")
        except OSError as error:
            raise UsageError(f"cannot write {str(path)!r}: {error}") from error

    def for_ids(self, ids: Sequence[str]) -> Splits:
        """Return the same splits with positions in other ids, such as those of another store of the same items.

        Ids that the splits do not know are left out.

        Raises
        ------
        UsageError
            If an id that takes part is missing.
        """
        place = {id: row for row, id in enumerate(ids)}
        if len(place) < len(ids):
            raise UsageError(f"{len(ids) - len(place)} of the {len(ids)} ids are there twice: splits need unique ids")
        at = np.array([place.get(id, -1) for id in self.ids], np.int64)
        needed = np.any([role > 0 for role in self._roles().values()], axis=0)
        if lost := [self.ids[row] for row in np.flatnonzero(needed & (at < 0))]:
            named = ", ".join(repr(id) for id in lost[:3])
            raise UsageError(
                f"{len(lost)} of the {int(needed.sum())} ids of these splits are missing, such as {named}: "
                "embed those items (label them, if they have none), or make new splits"
            )
        groups = None
        if self.groups is not None:
            groups = self.groups.max(initial=-1) + 1 + np.arange(len(ids))
            groups[at[at >= 0]] = self.groups[at >= 0]
        left_out = {reason: np.sort(at[rows][at[rows] >= 0]) for reason, rows in self.left_out.items()}
        known = {*self.ids}
        if unknown := [row for row, id in enumerate(ids) if id not in known]:
            left_out["that the saved splits do not know"] = np.array(unknown, np.int64)
        resamples = [_moved(one, at) for one in self.resamples]
        return Splits(list(ids), resamples, self.kind, groups, self.notes, left_out)

    def _roles(self) -> dict[str, npt.NDArray[np.int8]]:
        """Return, by resample and by inner split, the place in `NAMES` of each row's role."""
        roles: dict[str, npt.NDArray[np.int8]] = {}
        for one in self.resamples:
            name = f"seed {one.seed} fold {one.fold}"
            roles[name] = _role(len(self.ids), one.train, one.test)
            for number, (train, held_out) in enumerate(one.tune or ()):
                roles[f"{name} tune {number}"] = _role(len(self.ids), one.train[train], one.train[held_out])
        return roles


def load_splits(path: str | Path) -> Splits:
    """Read what `Splits.save` wrote.

    Raises
    ------
    UsageError
        If it is no such file, was written by a newer version, or was changed since.
    """
    try:
        table = pq.read_table(Path(path), memory_map=False)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"cannot read splits from {str(path)!r}: {error}") from error
    try:
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[KEY])
        version = about["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{str(path)!r} holds no splits of embedpipe: name a file that `Splits.save` wrote") from error
    if version != VERSION:
        raise UsageError(
            f"{str(path)!r} holds splits of version {version!r}, and this embedpipe reads version {VERSION}: update it"
        )
    try:
        splits = _read(table, about)
        intact = splits.identity == about["identity"] and len({*splits.ids}) == len(splits.ids)
    except (KeyError, IndexError, TypeError, ValueError, pa.ArrowException):
        intact = False
    if not intact:
        raise UsageError(f"{str(path)!r} was damaged or changed since it was saved: make the splits again")
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
        kind=about["kind"],
        groups=None if table["group"].null_count else table["group"].to_numpy().astype(np.int64),
        notes=list(about["notes"]),
        left_out={reason: np.flatnonzero(reasons == reason) for reason in dict.fromkeys(reasons) if reason is not None},
    )


def _rows_of(table: pa.Table, column: str) -> Split:
    roles = np.array(table[column].to_pylist(), object)
    return np.flatnonzero(roles == "train"), np.flatnonzero(roles == "test")


def _role(rows: int, train: Rows, test: Rows) -> npt.NDArray[np.int8]:
    role = np.zeros(rows, np.int8)
    role[train], role[test] = 1, 2
    return role


def _moved(one: Resample, at: Rows) -> Resample:
    order = np.argsort(at[one.train])
    rank = np.argsort(order)
    tune = None if one.tune is None else [(np.sort(rank[a]), np.sort(rank[b])) for a, b in one.tune]
    return Resample(one.seed, one.fold, at[one.train][order], np.sort(at[one.test]), tune)
