"""Rows to split, and a check of splits, shared by the tests of splits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedpipe.splits import Splits


def names(rows: int) -> list[str]:
    return [f"row-{row:03d}" for row in range(rows)]


def with_copies(rows: int, copies: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return vectors, the last ``copies`` of which are near-duplicates of the first ones, and their two classes."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 24)).astype(np.float32)
    y = np.arange(rows) % 2
    X = np.concatenate([X, X[:copies] + np.float32(0.02) * rng.standard_normal((copies, 24)).astype(np.float32)])
    return X, np.concatenate([y, y[:copies]])


def check_no_leak(splits: Splits) -> None:
    """Check that no row and no group is on both sides of any split."""
    for item in splits.resamples:
        assert (np.diff(item.train) > 0).all()
        assert (np.diff(item.test) > 0).all()
        sides = [(item.train, item.test)] + [(item.train[a], item.train[b]) for a, b in item.tune or ()]
        for train, test in sides:
            assert len(train)
            assert len(test)
            assert not {*train.tolist()} & {*test.tolist()}
            if splits.groups is not None:
                assert not {*splits.groups[train].tolist()} & {*splits.groups[test].tolist()}
