"""Splits without leaks: which rows each resample trains on and which rows it measures on.

With a split column: trained on train and validation (parameters are chosen on validation), measured on test. Without:
repeated stratified folds, each measured once and trained on in all others. Groups and near-duplicates stay together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embedpipe._utils.messages.counting import counted
from embedpipe._utils.missing import is_missing
from embedpipe._utils.option_names import has_option, option
from embedpipe.decoding.hashing.perceptual import PerceptualHashes
from embedpipe.errors import TrainingDataError, UsageError, require_one_of
from embedpipe.neighbours.exact import Vectors
from embedpipe.neighbours.options import NEAR_DUPLICATE_COSINE
from embedpipe.splits.grouped import fold_numbers
from embedpipe.splits.groups import RowGroups, find_groups
from embedpipe.splits.inner import FOLDS, MANY_ROWS, Split
from embedpipe.splits.options import check_folds
from embedpipe.splits.split_column import divide_by_split, parse_split_names
from embedpipe.splits.splits import Resample, Rows, Splits, load_splits
from embedpipe.statistics.percentages import percent
from embedpipe.store.id_index import id_array

__all__ = ["Resample", "Splits", "load_splits", "make_splits"]

TASKS = ("classification", "regression", "multilabel")


def make_splits(
    ids: Sequence[str],
    y: npt.ArrayLike,
    *,
    task: str,
    split: Iterable[Any] | None = None,
    groups: Iterable[Any] | None = None,
    vectors: Vectors | None = None,
    near_duplicates: float | Literal["copies"] | None = NEAR_DUPLICATE_COSINE,
    hashes: PerceptualHashes | None = None,
    folds: int = 5,
    repeats: int = 5,
    seed: int = 0,
) -> Splits:
    """Divide rows into training and test rows so that nothing leaks from one side to the other.

    Rows that share a group, and near-duplicates, stay on one side, also where only both together connect them:

    - If ``split`` names train, and test or validation, there is one resample: parameters are chosen on validation,
      the model is fitted on train and validation, and measured on all test rows, so that metrics stay comparable
      with others' on that test set. Training rows that share a group with a test row are left out.
    - Otherwise, ``repeats`` times, rows are divided at random into ``folds`` folds with even classes. Classes with
      fewer groups than folds are left out, as they could not be both learned and measured in every fold.

    With groups or near-duplicates, the inner splits on which parameters are chosen keep them together too.

    Parameters
    ----------
    ids : sequence of str
        Unique.
    y : sequence (n_samples,), or bool array (n_samples, n_labels) for several labels a row
    task : {"classification", "regression", "multilabel"}
        Folds are stratified for ``classification``.
    split : iterable of n_samples split names, optional
    groups : iterable of n_samples values, optional
        Rows with equal values stay together, such as photographs of one patient. A row without a value (None, NaN,
        pandas' NA) is a group of its own.
    vectors : float32 array (n_samples, dim), optional
        By which near-duplicates are found; without them, none are looked for.
    near_duplicates : float, "copies" or None
        Centred cosine, in (0, 1], from which two rows are near-duplicates; see `embedpipe.neighbours.duplicates`.
        ``copies``: only rows with equal vectors. None: near-duplicates are not looked for.
    hashes : PerceptualHashes, optional
        Of pictures: they decide instead of the cosine, where a row has one.
    folds : int
        Number of folds, 2 or more.
    repeats : int
        How often rows are divided into folds.
    seed : int
        Of the first repeat; each further one adds 1.

    Returns
    -------
    Splits

    Raises
    ------
    UsageError
        If an argument is out of range, or ids are not unique.
    TrainingDataError
        If too few rows are left to train or to measure on; the message names the class.

    Examples
    --------
    >>> import numpy as np
    >>> from embedpipe import make_splits
    >>> ids = [f"photo-{number}" for number in range(12)]
    >>> y = np.array(["cat", "dog"] * 6)
    >>> splits = make_splits(ids, y, task="classification", folds=3, repeats=2)
    >>> splits
    Splits(12 rows, 6 resamples: 2 x 3-fold stratified cross-validation)
    >>> splits.resamples[0].train.shape, splits.resamples[0].test.shape
    ((8,), (4,))
    """
    # Before NumPy makes text of NaN in a list of texts.
    unlabelled = [row for row, value in enumerate(y if isinstance(y, Sequence) else []) if is_missing(value)]
    ids = list(id_array(ids).to_pylist())
    y = np.asarray(y)
    require_one_of("task", task, TASKS)
    check_folds(folds, repeats)
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"{option('seed')} must be an integer >= 0, got {seed!r}")
    seed = int(seed)  # those of NumPy cannot be saved
    if not len(ids) or len({*ids}) < len(ids) or len(y) != len(ids):
        raise UsageError(
            f"ids must be unique, one per row, got {len(ids)} ids, {len({*ids})} of them distinct, for {len(y)} rows"
        )
    if y.dtype.kind in "fO":
        unlabelled += [row for row, value in enumerate(y.tolist()) if is_missing(value)]
    if unlabelled:
        raise TrainingDataError(f"every row must have a label, and row {unlabelled[0] + 1} has none: leave it out")
    kinds = np.unique(y, return_inverse=True)[1] if task == "classification" and y.ndim == 1 else None
    if near_duplicates is None:
        vectors, near_duplicates = None, NEAR_DUPLICATE_COSINE
    row_groups = find_groups(len(ids), groups, vectors, near_duplicates, hashes)
    split = None if split is None else list(split)
    if split is not None and len(split) != len(ids):
        raise UsageError(f"{option('split')} must have one name per row, got {len(split)} names for {len(ids)} rows")
    names = None if split is None else parse_split_names(split)
    if names is not None:
        return _by_split_column(ids, y, kinds, names, row_groups, seed)
    return _by_folds(ids, y, kinds, row_groups, folds, [seed + number for number in range(repeats)])


def _by_split_column(
    ids: list[str], y: npt.NDArray[Any], kinds: Rows | None, names: npt.NDArray[Any], groups: RowGroups, seed: int
) -> Splits:
    train, ((_, test),), tune_splits, measured_on = divide_by_split(names)
    protocol = f"{measured_on} split"
    left_out, notes, description = {}, [*groups.notes], protocol
    if len(others := np.setdiff1d(np.arange(len(ids)), np.concatenate([train, test]))):
        left_out["whose split is not train, validation or test"] = others
    validation = np.zeros(len(ids), bool)
    if tune_splits:
        validation[train[tune_splits[0][1]]] = True
    if groups.numbers is not None:
        shared = np.isin(groups.numbers[train], groups.numbers[test])
        if shared.any():
            hit = int(np.isin(groups.numbers[test], groups.numbers[train]).sum())
            left_out[f"of train that share a group with test rows ({groups.source})"] = train[shared]
            description = f"{protocol}, {groups.source} of its rows not trained on"
            notes.append(
                f"{shared.sum():,} training rows ({percent(shared.mean())}) share a group with {hit:,} test rows "
                f"({percent(hit / len(test))}) by {groups.source}: they are left out, and all test rows are measured on"
            )
        train = train[~shared]
    tune = _validation_split(train, np.flatnonzero(validation[train]), groups) or _inner(train, kinds, groups, seed, 0)
    if not len(train) or (kinds is not None and len(np.unique(kinds[train])) < 2):
        left = "the training rows left have fewer than two classes" if len(train) else "no training row is left"
        raise TrainingDataError(
            f"{left} beside the {protocol}{_brackets(notes)}: "
            f"label more rows, correct the split column, or raise {option('near_duplicates')}"
        )
    if kinds is not None and len(lost := np.setdiff1d(kinds[test], kinds[train])):
        notes.append(f"test rows of {_named(y, kinds, lost)} count as wrong: no training row of that class is left")
    return Splits(ids, [Resample(seed, 0, train, test, tune)], description, groups.numbers, notes, left_out)


def _validation_split(train: Rows, held_out: Rows, groups: RowGroups) -> list[Split] | None:
    """Return (train, validation) as positions in ``train``, without groups on both sides; None if one is empty."""
    rest = np.setdiff1d(np.arange(len(train)), held_out)
    if groups.numbers is not None:
        rest = rest[~np.isin(groups.numbers[train[rest]], groups.numbers[train[held_out]])]
    return [(rest, held_out)] if len(rest) and len(held_out) else None


def _by_folds(
    ids: list[str], y: npt.NDArray[Any], kinds: Rows | None, groups: RowGroups, folds: int, seeds: list[int]
) -> Splits:
    kept, left_out, rare_notes = _without_rare(y, kinds, groups, len(ids), folds)
    notes = [*groups.notes, *rare_notes]
    classes = np.zeros(len(kept), np.int64) if kinds is None else np.unique(kinds[kept], return_inverse=True)[1]
    kept_groups = None if groups.numbers is None else groups.numbers[kept]
    resamples, absent = [], set[int]()
    for seed in seeds:
        numbers = fold_numbers(classes, kept_groups, folds, np.random.default_rng(seed))
        for fold in range(folds):
            train, test = kept[numbers != fold], kept[numbers == fold]
            resamples.append(Resample(seed, fold, train, test, _inner(train, kinds, groups, seed, fold)))
            if kinds is not None:
                absent |= {*np.setdiff1d(kinds[kept], kinds[test]).tolist()}
    if kinds is not None and absent:
        notes.append(f"some folds have no row of {_named(y, kinds, sorted(absent))}: too few groups hold any")
    stratified = "stratified " * (kinds is not None)
    together = f", {groups.source} together" * (groups.numbers is not None)
    times = f"{len(seeds)} x " * (len(seeds) > 1)
    description = f"{times}{folds}-fold {stratified}cross-validation{together}"
    return Splits(ids, resamples, description, groups.numbers, notes, left_out)


def _without_rare(
    y: npt.NDArray[Any], kinds: Rows | None, groups: RowGroups, rows: int, folds: int
) -> tuple[Rows, dict[str, Rows], list[str]]:
    """Return the rows of classes with at least as many groups as folds, the rows left out by reason, and notes."""
    unit, by = ("row", "") if groups.numbers is None else ("group", f" (by {groups.source})")
    all_rows = np.arange(rows)
    if kinds is None:
        if (count := groups.count(all_rows)) < folds:
            fewer = ", or use fewer folds" * has_option("folds")
            raise TrainingDataError(
                f"{option('folds') if fewer else 'folds'} must be at most the number of {unit}s{by}, got {folds} folds "
                f"for {count} {unit}s: label more rows{fewer}"
            )
        return all_rows, {}, []
    order = np.argsort(kinds, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1)
    units = np.array([groups.count(each) for each in members])
    if len(units) < 2:
        raise TrainingDataError(f"a classifier needs two classes or more, got {rows} rows of {_named(y, kinds, [0])}")
    rare = np.flatnonzero(units < folds)
    if not len(rare):
        return all_rows, {}, []
    excluded = np.isin(kinds, rare)
    classes, most = _named(y, kinds, rare), int(units[rare].max())
    has = "have at most" if len(rare) > 1 else "has"
    few = f"{has} {most} {unit}{'s' * (most > 1)}{by}, fewer than the {folds} folds"
    fix = "label more rows, or declare train and test rows in a column `split`"
    loose = "near-duplicates" in groups.source and has_option("near_duplicates")
    loosen = f"; or raise {option('near_duplicates')} (0.99, or off)" * loose
    if len(units) - len(rare) < 2:
        fewest = np.sort(units)[-2]
        fewer = f", or use fewer folds ({option('folds', fewest)})" if fewest > 1 and has_option("folds") else ""
        raise TrainingDataError(f"{classes} {few}, and fewer than two classes are left without: {fix}{fewer}{loosen}")
    count = int(excluded.sum())
    they, them = ("they", "them") if len(rare) > 1 else ("it", "it")
    fewer = ", or use fewer folds" * has_option("folds")
    note = f"{classes} ({counted(count, 'row')}) left out: {they} {few}. To measure {them}, {fix}{fewer}{loosen}"
    reason = f"of {classes}, too few for {folds} folds"
    return np.flatnonzero(~excluded), {reason: np.flatnonzero(excluded)}, [note]


def _inner(train: Rows, kinds: Rows | None, groups: RowGroups, seed: int, fold: int) -> list[Split] | None:
    """Return as many splits as `inner_splits`, with groups whole, as positions in ``train``; None without groups."""
    if groups.numbers is None or groups.count(train) < FOLDS:
        return None
    classes = np.zeros(len(train), np.int64) if kinds is None else kinds[train]
    many = len(train) > MANY_ROWS
    rng = np.random.default_rng([seed, fold])
    numbers = fold_numbers(classes, groups.numbers[train], 5 if many else FOLDS, rng)
    # Of five folds, some are empty where there are fewer groups.
    held_out = [numbers.min()] if many else range(FOLDS)
    return [(np.flatnonzero(numbers != number), np.flatnonzero(numbers == number)) for number in held_out]


def _named(y: npt.NDArray[Any], kinds: Rows, numbers: Rows | list[int]) -> str:
    """Return ``class 'a'``, or ``classes 'a', 'b'``, with at most five names."""
    names = [repr(name) for name in y[[int(np.argmax(kinds == number)) for number in numbers[:5]]].tolist()]
    more = f" and {len(numbers) - 5} more" * (len(numbers) > 5)
    return f"class{'es' * (len(numbers) > 1)} {', '.join(names)}{more}"


def _brackets(notes: list[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""
