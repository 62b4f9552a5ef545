"""Splits that do not leak: by the store's own roles, or by repeated folds, with copies and groups on one side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedpipe.errors import TrainingDataError, UsageError
from embedpipe.neighbours.near import NEAR
from embedpipe.splits.grouped import fold_numbers
from embedpipe.splits.groups import Bonds, find_bonds
from embedpipe.splits.inner import FOLDS, MANY_ROWS, Split, named_splits, split_roles
from embedpipe.splits.splits import Resample, Rows, Splits, load_splits

__all__ = ["Resample", "Splits", "load_splits", "make_splits"]


def make_splits(
    ids: Sequence[str],
    y: npt.NDArray[Any],
    *,
    task: str,
    split: Iterable[Any] | None = None,
    groups: Iterable[Any] | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    threshold: float = NEAR,
    folds: int = 5,
    repeats: int = 5,
    seed: int = 0,
) -> Splits:
    """Decide which rows are trained on and measured on, so that nothing leaks from one to the other.

    Rows of one of the user's groups, near-duplicates, and what both together join, stay on one side:

    - Where ``split`` names train, and test or validation, there is one resample: measured on test, chosen on
      validation, fitted on both. Test rows are all measured, so that figures stay comparable with others' on that
      test set; training rows that belong together with a test row are left out, as they would be by folds.
    - Else ``repeats`` times ``folds`` folds, each drawn anew, with the classes even. Classes that lie in fewer groups
      than there are folds are left out, as they could not be both learned and measured everywhere.

    Where rows belong together, heads get inner splits that keep them together too.

    Parameters
    ----------
    ids : sequence of str
        Unique.
    y : array (n_samples,), or bool (n_samples, n_labels) where a row may have several labels
    task : str
        Classes are held even for ``classification`` only.
    split : iterable of n_samples split names, optional
    groups : iterable of n_samples values, optional
        Rows of equal values belong together, such as photographs of one patient; a row without a value (None, NaN)
        stands alone.
    vectors : float32 array (n_samples, dim), optional
        What near-duplicates are found by; they are not looked for where None.
    threshold : float
        Centred cosine from which two rows are near-duplicates; see `embedpipe.neighbours.duplicates`.
    folds, repeats, seed : int

    Raises
    ------
    UsageError
        If an argument is out of range, or ids are not unique.
    TrainingDataError
        If there is too little to learn from on one side; the message names the class and the fix.
    """
    ids = list(ids)
    if folds < 2 or repeats < 1:
        raise UsageError(f"folds={folds!r}, repeats={repeats!r}: there must be 2 folds and 1 repeat at least")
    if len({*ids}) < len(ids) or len(y) != len(ids):
        raise UsageError(f"{len(ids)} ids, {len({*ids})} of them distinct, for {len(y)} rows: splits need one id a row")
    kinds = np.unique(y, return_inverse=True)[1] if task == "classification" and y.ndim == 1 else None
    bonds = find_bonds(len(ids), groups, vectors, threshold)
    names = None if split is None else named_splits(split)
    if names is not None:
        return _by_roles(ids, y, kinds, names, bonds, seed)
    return _by_folds(ids, y, kinds, bonds, folds, [seed + number for number in range(repeats)])


def _by_roles(
    ids: list[str], y: npt.NDArray[Any], kinds: Rows | None, names: npt.NDArray[Any], bonds: Bonds, seed: int
) -> Splits:
    train, ((_, test), *_), tuned_on, protocol = split_roles(names)
    left_out, notes, kind = {}, [*bonds.notes], protocol
    if len(others := np.setdiff1d(np.arange(len(ids)), np.concatenate([train, test]))):
        left_out["whose split is not train, validation or test"] = others
    validation = np.zeros(len(ids), bool)
    if tuned_on:
        validation[train[tuned_on[0][1]]] = True
    if bonds.groups is not None:
        shared = np.isin(bonds.groups[train], bonds.groups[test])
        if shared.any():
            hit = int(np.isin(bonds.groups[test], bonds.groups[train]).sum())
            left_out[f"of train that belong to test rows ({bonds.what})"] = train[shared]
            kind = f"{protocol}, {bonds.what} of its rows not trained on"
            notes.append(
                f"{shared.sum():,} training rows ({shared.mean():.1%}) belong together with {hit:,} test rows "
                f"({hit / len(test):.1%}) by {bonds.what}: they are not trained on, and all test rows are measured"
            )
        train = train[~shared]
    tune = _tuned(train, np.flatnonzero(validation[train]), bonds) or _inner(train, kinds, bonds, seed, 0)
    if not len(train) or (kinds is not None and len(np.unique(kinds[train])) < 2):
        few = "of fewer than two classes" if len(train) else "none"
        raise TrainingDataError(
            f"the rows that are left to train on beside the {protocol} are {few}{_brackets(notes)}: "
            "label more, correct the split column, or raise the threshold of near-duplicates"
        )
    if kinds is not None and len(lost := np.setdiff1d(kinds[test], kinds[train])):
        notes.append(f"test rows of {_named(y, kinds, lost)} are counted wrong: no such row is left to train on")
    return Splits(ids, [Resample(seed, 0, train, test, tune)], kind, bonds.groups, notes, left_out)


def _tuned(train: Rows, held_out: Rows, bonds: Bonds) -> list[Split] | None:
    """Return the split into train and validation, as positions in ``train``, without copies on both sides."""
    rest = np.setdiff1d(np.arange(len(train)), held_out)
    if bonds.groups is not None:
        rest = rest[~np.isin(bonds.groups[train[rest]], bonds.groups[train[held_out]])]
    return [(rest, held_out)] if len(rest) and len(held_out) else None


def _by_folds(
    ids: list[str], y: npt.NDArray[Any], kinds: Rows | None, bonds: Bonds, folds: int, seeds: list[int]
) -> Splits:
    kept, left_out, rare_notes = _without_rare(y, kinds, bonds, len(ids), folds)
    notes = [*bonds.notes, *rare_notes]
    classes = np.zeros(len(kept), np.int64) if kinds is None else np.unique(kinds[kept], return_inverse=True)[1]
    groups = None if bonds.groups is None else bonds.groups[kept]
    resamples, absent = [], set[int]()
    for seed in seeds:
        numbers = fold_numbers(classes, groups, folds, np.random.default_rng(seed))
        for fold in range(folds):
            train, test = kept[numbers != fold], kept[numbers == fold]
            resamples.append(Resample(seed, fold, train, test, _inner(train, kinds, bonds, seed, fold)))
            if kinds is not None:
                absent |= {*np.setdiff1d(kinds[kept], kinds[test]).tolist()}
    if kinds is not None and absent:
        notes.append(f"some folds have no row of {_named(y, kinds, sorted(absent))}, of which few groups have any")
    stratified = "stratified " * (kinds is not None)
    together = f", {bonds.what} together" * (bonds.groups is not None)
    times = f"{len(seeds)} x " * (len(seeds) > 1)
    kind = f"{times}{folds}-fold {stratified}cross-validation{together}"
    return Splits(ids, resamples, kind, bonds.groups, notes, left_out)


def _without_rare(
    y: npt.NDArray[Any], kinds: Rows | None, bonds: Bonds, rows: int, folds: int
) -> tuple[Rows, dict[str, Rows], list[str]]:
    """Return the rows that take part: those of classes that lie in as many groups as there are folds."""
    apart = f" apart (by {bonds.what})" * (bonds.groups is not None)
    everything = np.arange(rows)
    if kinds is None:
        if (there := bonds.units(everything)) < folds:
            raise TrainingDataError(
                f"there are {there} rows{apart}, fewer than the {folds} folds: label more, or use fewer folds"
            )
        return everything, {}, []
    order = np.argsort(kinds, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1)
    units = np.array([bonds.units(each) for each in members])
    if len(units) < 2:
        raise TrainingDataError(f"all {rows} rows are of {_named(y, kinds, [0])}: a classifier needs at least two")
    rare = np.flatnonzero(units < folds)
    if not len(rare):
        return everything, {}, []
    gone = np.isin(kinds, rare)
    named, most = _named(y, kinds, rare), int(units[rare].max())
    few = f"{most} row{'s' * (most > 1)}{apart}{' each at most' * (len(rare) > 1)}, fewer than the {folds} folds"
    joined = "; or join fewer near-duplicates (--near-duplicates 0.99, or off)" * ("near-duplicates" in bonds.what)
    if len(units) - len(rare) < 2:
        fewest = np.sort(units)[-2]
        fewer = f" (or `evaluate --folds {fewest}`)" if fewest > 1 else ""
        raise TrainingDataError(
            f"{named}: {few}, which leaves fewer than two classes to tell apart: label more, or say in a column "
            f"`split` which rows are train and test{fewer}{joined}"
        )
    count = int(gone.sum())
    note = (
        f"{named} ({count:,} row{'s' * (count > 1)}) left out: {few}. To measure it, label more, or say in a column "
        f"`split` which rows are train and test (or `evaluate --folds`){joined}"
    )
    return np.flatnonzero(~gone), {f"of {named}, too few for {folds} folds": np.flatnonzero(gone)}, [note]


def _inner(train: Rows, kinds: Rows | None, bonds: Bonds, seed: int, fold: int) -> list[Split] | None:
    """Return splits for a head's own choices, as positions in ``train``: as many as `inner_splits`, by group."""
    if bonds.groups is None or bonds.units(train) < FOLDS:
        return None
    classes = np.zeros(len(train), np.int64) if kinds is None else kinds[train]
    many = len(train) > MANY_ROWS
    rng = np.random.default_rng([seed, fold])
    numbers = fold_numbers(classes, bonds.groups[train], 5 if many else FOLDS, rng)
    return [
        (np.flatnonzero(numbers != number), np.flatnonzero(numbers == number)) for number in range(1 if many else FOLDS)
    ]


def _named(y: npt.NDArray[Any], kinds: Rows, numbers: Rows | list[int]) -> str:
    """Return ``class 'a'``, or ``classes 'a', 'b'``; no more than five by name."""
    names = [repr(y[np.argmax(kinds == number)].item()) for number in numbers[:5]]
    more = f" and {len(numbers) - 5} more" * (len(numbers) > 5)
    return f"class{'es' * (len(numbers) > 1)} {', '.join(names)}{more}"


def _brackets(notes: list[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""
